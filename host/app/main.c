/* main.c - prepares the process, runs one command, turns its Status into the exit code. */
#include "app/commands.h"
#include "base/signal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* A file opened on a closed descriptor 0, 1 or 2 would get our messages. */
static void open_standard_files(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) _exit(ERR_INPUT);
}

/* A full disk behind stdout is a failure; a reader that has seen enough is none. */
static Status flush_output(void)
{
    if (!fflush(stdout) && !ferror(stdout)) return OK;
    if (errno == EPIPE) return OK;
    return FAIL(errno == ENOSPC ? ERR_SPACE : ERR_INPUT, "standard output: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    open_standard_files();
    signal_install();
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* patients' data stays out of core files */

    App app = {.log = log_new(false)};
    Status s = commands_run(&app, argc, argv);
    Status flushed = s ? OK : flush_output();
    if (flushed) s = flushed;
    if (s && !status_said()) log_failure(app.log, status_message(), status_trace_text());
    log_free(app.log);
    return (int)s;
}
