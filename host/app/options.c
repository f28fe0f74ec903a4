/* options.c - getopt_long driven by a table. */
#include "app/options.h"
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { FIRST = 256 }; /* getopt's value of option 0: beyond every character */

static const Option builtin[] = {
    {"help", NULL, "print this", NULL},
    {"set", "SECTION.KEY=VALUE", "change one setting of CONFIG; as often as needed", NULL},
};

/* The command's own options, then --help and, with a config, --set. */
static int list_options(const Option *list[MOST_OPTIONS], const Usage *u)
{
    int n = 0;
    CHECK(u->n_option + 2 <= MOST_OPTIONS);
    for (int i = 0; i < u->n_option; i++) list[n++] = &u->option[i];
    list[n++] = &builtin[0];
    if (u->takes_config) list[n++] = &builtin[1];
    return n;
}

static void add_option(Text *all, const Option *o)
{
    enum { COLUMN = 31 };
    Text name = {0}, meaning = {0};
    text_add(&name, "--%s%s%s", o->name, o->metavar ? " " : "", o->metavar ? o->metavar : "");
    text_add(&meaning, "%s", o->help);
    if (o->preset && *o->preset) text_add(&meaning, " (default %s)", o->preset);
    text_add_help(all, name.s, COLUMN, meaning.s);
    free(name.s);
    free(meaning.s);
}

static void print_help(const Usage *u)
{
    const Option *list[MOST_OPTIONS];
    int n = list_options(list, u);
    Text all = {0};
    text_add(&all, "usage: equipoise %s [OPTION]...%s%s\n", u->command, u->arguments ? " " : "",
             u->arguments ? u->arguments : "");
    text_add_wrapped(&all, u->help, 0, 0);
    text_add(&all, "\n\noptions:\n");
    for (int i = 0; i < n; i++) add_option(&all, list[i]);
    fputs(all.s, stdout);
    free(all.s);
    if (!u->takes_config) return;
    puts("\nsettings: their defaults, meanings and limits\n");
    config_help(stdout);
}

/* word as the user typed it: "--colour" or "--colour=red" */
static Status unknown_option(const Usage *u, const char *word)
{
    const Option *list[MOST_OPTIONS];
    const char *name[MOST_OPTIONS];
    int n = list_options(list, u);
    for (int i = 0; i < n; i++) name[i] = list[i]->name;
    const char *bare = word + strspn(word, "-");
    char *typed = strndup(bare, strcspn(bare, "="));
    CHECK(typed);
    const char *near = text_nearest(typed, name, n);
    Status s = near ? FAIL(ERR_USAGE, "%s: there is no option %s; did you mean --%s?", u->command,
                           word, near)
                    : FAIL(ERR_USAGE, "%s: there is no option %s; see equipoise %s --help",
                           u->command, word, u->command);
    free(typed);
    return s;
}

static Status take(Options *o, const Usage *u, int argc, char **argv)
{
    const Option *list[MOST_OPTIONS];
    struct option spec[MOST_OPTIONS + 1] = {{0}};
    int n = list_options(list, u), got;
    for (int i = 0; i < n; i++)
        spec[i] = (struct option){list[i]->name, list[i]->metavar ? required_argument : no_argument,
                                  NULL, FIRST + i};
    optind = 0; /* GNU: starts anew */
    opterr = 0;
    while ((got = getopt_long(argc, argv, ":h", spec, NULL)) != -1) {
        char letter[] = {'-', (char)optopt, 0};
        bool is_short = got == '?' && optopt > 0 && optopt < FIRST;
        const char *word = is_short ? letter : argv[optind - 1];
        if (got == ':') return FAIL(ERR_USAGE, "%s: %s needs a value", u->command, word);
        if (got == '?' && optopt >= FIRST)
            return FAIL(ERR_USAGE, "%s: %s takes no value", u->command, word);
        if (got == '?') return unknown_option(u, word);
        if (got == 'h') got = FIRST + u->n_option;
        const Option *hit = list[got - FIRST];
        if (hit->metavar && !*optarg && strcmp(hit->metavar, "TEXT"))
            return FAIL(ERR_USAGE, "%s: --%s is \"\", expected %s", u->command, hit->name,
                        hit->metavar);
        if (o->n_given == MOST_GIVEN) return FAIL(ERR_USAGE, "%s: too many options", u->command);
        o->given[o->n_given].name = hit->name;
        o->given[o->n_given++].value = hit->metavar ? optarg : NULL;
    }
    o->argument = argv + optind;
    o->n_argument = argc - optind;
    return OK;
}

Status options_parse(Options *o, const Usage *u, int argc, char **argv)
{
    memset(o, 0, sizeof *o);
    o->usage = u;
    TRY(take(o, u, argc, argv));
    o->helped = options_has(o, "help");
    if (o->helped) {
        print_help(u);
        return OK;
    }
    if (o->n_argument > u->most)
        return FAIL(ERR_USAGE, "%s: found \"%s\", expected no more than %s", u->command,
                    o->argument[u->most], u->most ? u->arguments : "its options");
    if (o->n_argument < u->least)
        return FAIL(ERR_USAGE, "%s: found %d of its arguments, expected %s", u->command,
                    o->n_argument, u->arguments);
    for (int i = 0; i < o->n_argument; i++)
        if (!*o->argument[i])
            return FAIL(ERR_USAGE, "%s: found an empty argument, expected %s", u->command,
                        u->arguments);
    return OK;
}

bool options_has(const Options *o, const char *name)
{
    for (int i = 0; i < o->n_given; i++)
        if (!strcmp(o->given[i].name, name)) return true;
    return false;
}

const char *options_each(const Options *o, const char *name, int i)
{
    for (int k = 0; k < o->n_given; k++)
        if (!strcmp(o->given[k].name, name) && i-- == 0) return o->given[k].value;
    return NULL;
}

const char *options_text(const Options *o, const char *name)
{
    for (int i = o->n_given - 1; i >= 0; i--)
        if (!strcmp(o->given[i].name, name)) return o->given[i].value;
    for (int i = 0; i < o->usage->n_option; i++)
        if (!strcmp(o->usage->option[i].name, name)) return o->usage->option[i].preset;
    CHECK(!"an option that the command does not declare");
    return NULL;
}

Status options_need(const char **v, const Options *o, const char *name)
{
    *v = options_text(o, name);
    return *v ? OK : FAIL(ERR_USAGE, "%s: --%s is missing", o->usage->command, name);
}

Status options_int(int *v, const Options *o, const char *name, int least, int most)
{
    const char *text;
    long value;
    TRY(options_need(&text, o, name));
    if (!text_to_long(&value, text) || value < least || value > most)
        return FAIL(ERR_USAGE, "%s: --%s is \"%s\", expected a whole number in %d..%d",
                    o->usage->command, name, text, least, most);
    *v = (int)value;
    return OK;
}

Status options_real(double *v, const Options *o, const char *name, double least, double most)
{
    const char *text;
    double value;
    TRY(options_need(&text, o, name));
    if (!text_to_double(&value, text) || value < least || value > most)
        return FAIL(ERR_USAGE, "%s: --%s is \"%s\", expected a number in %g..%g", o->usage->command,
                    name, text, least, most);
    *v = value;
    return OK;
}

Status options_out(const char **path, const Options *o, const char *name, const char *end, int n,
                   const char *const *input)
{
    const char *p = *path = options_text(o, name), *command = o->usage->command;
    if (!p) return OK;
    size_t length = strlen(p), tail = strlen(end);
    if (length <= tail || strcasecmp(p + length - tail, end) || p[length - 1] == '/')
        return FAIL(ERR_USAGE, "%s: --%s is \"%s\", expected the name of a%s%s file", command, name,
                    p, *end ? " " : "", end);
    for (int i = 0; i < n; i++)
        if (input[i] && file_same(p, input[i]))
            return FAIL(ERR_USAGE, "%s: --%s is \"%s\", which is read, expected another file",
                        command, name, p);
    TRY(file_check_room(p));
    if (file_exists(p) && !options_has(o, "force"))
        return FAIL(ERR_USAGE, "%s: is there, expected a new file, or --force", p);
    return OK;
}

Status options_config(Config *c, const Options *o)
{
    Config read;
    CHECK(o->usage->takes_config && o->n_argument > 0);
    config_default(&read);
    TRY(config_read(&read, o->argument[0]));
    const char *assignment;
    for (int i = 0; (assignment = options_each(o, "set", i)); i++)
        TRY(config_assign(&read, assignment, "--set"));
    TRY(config_check(&read));
    *c = read;
    return OK;
}
