/* test_signal.c - the first signal asks, the second ends. */
#include "base/signal.h"
#include "base/status.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Wait status of a child that gets `number` as often as given; it exits with 40 + the flag. */
static int child(int number, int times)
{
    pid_t pid = fork();
    if (pid == 0) {
        signal_install();
        if (signal_stop_requested()) _exit(1);
        for (int i = 0; i < times; i++) raise(number);
        _exit(40 + signal_stop_requested());
    }
    int status = 0;
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    return status;
}

static void first_asks_second_ends(void **state)
{
    (void)state;
    static const int number[] = {SIGINT, SIGTERM};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(WEXITSTATUS(child(number[i], 0)), 40);
        assert_int_equal(WEXITSTATUS(child(number[i], 1)), 41);
        int status = child(number[i], 2);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == number[i]);
    }
    assert_int_equal(WEXITSTATUS(child(SIGUSR1, 3)), 41);
    assert_int_equal(WEXITSTATUS(child(SIGALRM, 2)), 41);
}

/* Without a signal from outside: at once, and after a time. */
static void a_program_may_ask_itself(void **state)
{
    (void)state;
    signal_install();
    signal_stop_after(1);
    assert_false(signal_stop_requested());
    sleep(2); /* until the alarm interrupts it */
    assert_true(signal_stop_requested());
}

static void pipes_and_limits_do_not_kill(void **state)
{
    (void)state;
    assert_int_equal(WEXITSTATUS(child(SIGPIPE, 1)), 40);
    assert_int_equal(WEXITSTATUS(child(SIGXFSZ, 1)), 40);
    assert_int_equal(WEXITSTATUS(child(SIGABRT, 1)), ERR_BUG);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_asks_second_ends),
        cmocka_unit_test(pipes_and_limits_do_not_kill),
        cmocka_unit_test(a_program_may_ask_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
