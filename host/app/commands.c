/* commands.c - finds the command that the user named. */
#include "app/commands.h"
#include "base/text.h"
#include <stdio.h>
#include <string.h>

typedef struct {
    const char *name;
    Status (*run)(App *app, int argc, char **argv);
    const char *help;
} Command;

static const Command command[] = {
#define COMMAND_ROW(name, run, help) {name, run, help},
    COMMANDS(COMMAND_ROW)};
enum { N_COMMAND = sizeof command / sizeof *command };

static void print_help(void)
{
    printf(
        "usage: equipoise COMMAND [OPTION]... [ARGUMENT]...\n"
        "Balances an imbalanced set of medical images with latent diffusion and measures whether "
        "it helped.\n\ncommands:\n");
    for (int i = 0; i < N_COMMAND; i++) printf("  %-18s %s\n", command[i].name, command[i].help);
    printf(
        "\n  equipoise COMMAND --help   says more\n"
        "  equipoise --version        prints the version\n"
        "\nexit codes: 0 done, 1 bug, 2 usage or config, 3 input file, 4 device, 5 out of space or "
        "memory,\n6 another process failed, 7 numbers went bad, 75 stopped by a signal after "
        "saving "
        "(run again)\n"
        "\nenvironment, each = 1: EQ_TRACE where an error came from; EQ_PROFILE bench: time per "
        "op; "
        "on a GPU\nEQ_NO_FUSE runs layers one by one, EQ_NO_GRAPH launches every kernel by "
        "itself, EQ_SYNC also waits for it,\nEQ_COMPARE also computes it on the CPU and stops at "
        "the first difference; more in docs/ARCHITECTURE.md\n");
}

Status commands_run(App *app, int argc, char **argv)
{
    if (argc < 2)
        return FAIL(ERR_USAGE, "no command given, expected one of those that --help lists");
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) return print_help(), OK;
    if (!strcmp(name, "--version")) return puts("equipoise " EQ_VERSION), OK;
    const char *names[N_COMMAND];
    for (int i = 0; i < N_COMMAND; i++) {
        if (!strcmp(name, command[i].name)) return command[i].run(app, argc - 1, argv + 1);
        names[i] = command[i].name;
    }
    const char *near = text_nearest(name, names, N_COMMAND);
    if (near) return FAIL(ERR_USAGE, "there is no command %s; did you mean %s?", name, near);
    return FAIL(ERR_USAGE, "there is no command %s; see equipoise --help", name);
}
