/* test_address.c - where rank 0 is, from the environment alone. */
#include "comm/address.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void first_host_of_a_list(void **state)
{
    (void)state;
    static const char *const list[][2] = {
        {"n1", "n1"},
        {"n1,n2", "n1"},
        {"n[1-2]", "n1"},
        {"gpu[001-004,007]-ib,m3", "gpu001-ib"},
        {"gpu[7],m3", "gpu7"},
        {"rack[2,4-5]n[08-09]", "rack2n08"},
        {"cn-0[3-9].cluster", "cn-03.cluster"},
        {"n[1-2", "n1"}, /* cut off */
        {"", ""},
    };
    char host[32];
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        address_first_host(host, sizeof host, list[i][0]);
        assert_string_equal(host, list[i][1]);
    }
    address_first_host(host, 4, "node[17-18]");
    assert_string_equal(host, "nod");
}

/* variables: NAME=VALUE, ended by NULL; of a job of 4 ranks, n_local of them here. */
static Status address(Address *a, const char *by, int n_local, const char *const *variables)
{
    static const char *const known[] = {
        "MASTER_ADDR",    "MASTER_PORT",  "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE",
        "PMIX_NAMESPACE", "SLURM_JOB_ID", "SLURM_STEP_ID",       "SLURM_STEP_NODELIST"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) unsetenv(known[i]);
    for (; *variables; variables++) {
        char name[64];
        const char *is = strchr(*variables, '=');
        snprintf(name, sizeof name, "%.*s", (int)(is - *variables), *variables);
        setenv(name, is + 1, 1);
    }
    return address_of_job(a, &(CommPlace){.world = 4, .n_local = n_local, .found_by = by});
}
#define VARIABLES(...)                                                                             \
    (const char *const[]) { __VA_ARGS__, NULL }

static void where_rank_0_is(void **state)
{
    (void)state;
    Address a, b;
    assert_int_equal(address(&a, "environment", 4, VARIABLES("A=b")), OK);
    assert_string_equal(a.hosts[0], "127.0.0.1");
    assert_int_equal(a.port, 29500);
    assert_string_equal(a.hosts[1], "");
    assert_int_equal(address(&a, "environment", 2, VARIABLES("MASTER_ADDR=n7", "MASTER_PORT=1234")),
                     OK);
    assert_string_equal(a.hosts[0], "n7");
    assert_int_equal(a.port, 1234);
    /* torchrun itself listens on the port */
    assert_int_equal(address(&a, "environment", 2,
                             VARIABLES("MASTER_ADDR=n7", "MASTER_PORT=1234",
                                       "TORCHELASTIC_USE_AGENT_STORE=True")),
                     OK);
    assert_int_equal(a.port, 1235);
    /* Slurm: the step's first host, a port and a token of the step */
    const char *const first[] = {"SLURM_JOB_ID=7", "SLURM_STEP_ID=0", "SLURM_STEP_NODELIST=n[3-4]",
                                 NULL};
    const char *const second[] = {"SLURM_JOB_ID=7", "SLURM_STEP_ID=1", "SLURM_STEP_NODELIST=n[3-4]",
                                  NULL};
    assert_int_equal(address(&a, "srun", 2, first), OK);
    assert_string_equal(a.hosts[0], "n3");
    assert_in_range(a.port, 20000, 29999);
    assert_int_equal(address(&b, "srun", 2, first), OK);
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(address(&b, "srun", 2, second), OK);
    assert_string_not_equal(a.token, b.token);
    assert_int_not_equal(a.port, b.port);
}

static void refused(void **state)
{
    (void)state;
    Address a;
    assert_int_equal(address(&a, "mpirun", 2, VARIABLES("A=b")), ERR_USAGE);
    assert_non_null(strstr(status_message(), "MASTER_ADDR is not set: 4 ranks on several hosts"));
    static const char *const port[] = {"MASTER_PORT=0", "MASTER_PORT=65535", "MASTER_PORT=12x"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(address(&a, "environment", 4, VARIABLES(port[i])), ERR_USAGE);
        assert_non_null(strstr(status_message(), "expected a number from 1 to 65534"));
    }
}

/* What MPI tells the others: this host, and a token that is new each time. */
static void this_host(void **state)
{
    (void)state;
    Address a, b;
    assert_int_equal(address_of_this_host(&a), OK);
    assert_int_equal(address_of_this_host(&b), OK);
    assert_string_equal(a.hosts[0], "127.0.0.1");
    assert_int_equal(strlen(a.token), 64);
    assert_string_not_equal(a.token, b.token);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_host_of_a_list),
        cmocka_unit_test(where_rank_0_is),
        cmocka_unit_test(refused),
        cmocka_unit_test(this_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
