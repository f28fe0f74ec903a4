/* signal.c - handlers that only set a flag. */
#include "base/signal.h"
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

/* A handler has no other way to say something; lock-free, so it may be set there. */
static atomic_int stop;
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a handler may only touch lock-free atomics");

static void on_stop(int number)
{
    (void)number;
    atomic_store(&stop, 1);
}

/* abort() ends with the exit code of its class; check_failed() has said what is wrong. */
static void on_abort(int number)
{
    (void)number;
    _exit(ERR_BUG);
}

void signal_install(void)
{
    struct sigaction once = {.sa_handler = on_stop, .sa_flags = (int)(SA_RESTART | SA_RESETHAND)};
    struct sigaction always = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    struct sigaction bug = {.sa_handler = on_abort};
    sigaction(SIGINT, &once, NULL);
    sigaction(SIGTERM, &once, NULL);
    sigaction(SIGUSR1, &always, NULL);
    sigaction(SIGALRM, &always, NULL);
    sigaction(SIGABRT, &bug, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

void signal_stop_after(unsigned seconds) { alarm(seconds); }
void signal_request_stop(void) { atomic_store(&stop, 1); }
bool signal_stop_requested(void) { return atomic_load(&stop) != 0; }

Status signal_check(void)
{
    return signal_stop_requested() ? FAIL(ERR_STOPPED, "stopped by a signal") : OK;
}
