/* place.c - who this process is among the ranks of its job, as its launcher says in the
 * environment.
 *
 * The innermost launcher is believed: torchrun may have been started by srun, mpirun starts its
 * helpers with srun. Variables set by hand must agree with a launcher's.
 */
#include "base/text.h"
#include "comm/address.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Names of the variables of one launcher; local and n_local may be missing. */
typedef struct {
    const char *found_by, *rank, *world, *local, *n_local;
} Names;

static const Names torchrun = {"environment", "RANK", "WORLD_SIZE", "LOCAL_RANK",
                               "LOCAL_WORLD_SIZE"};
static const Names mpirun = {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                             "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"};
/* SLURM_STEP_NUM_TASKS: only srun sets it. A batch shell has the others too, and is alone. */
static const Names srun = {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", NULL};

const char *address_variable(const char *name)
{
    const char *v = name ? getenv(name) : NULL;
    return v && *v ? v : NULL;
}

/* *out stays where the variable is not set. */
static Status number(int *out, const char *name, int least)
{
    long n;
    const char *v = address_variable(name);
    if (!v) return OK;
    if (!text_to_long(&n, v) || n < least || n > INT_MAX)
        return FAIL(ERR_USAGE, "%s is \"%s\", expected a number from %d", name, v, least);
    *out = (int)n;
    return OK;
}

/* "2(x3),1": tasks of each node in the order of nodes. 0: cannot be read. */
static int tasks_of_node(const char *list, int node)
{
    while (list && *list) {
        char *end;
        long tasks = strtol(list, &end, 10), times = 1;
        if (end == list || tasks < 1 || tasks > INT_MAX) return 0;
        if (!strncmp(end, "(x", 2)) {
            times = strtol(end + 2, &end, 10);
            if (*end++ != ')') return 0;
        }
        if (*end && *end != ',') return 0;
        if (node < times) return (int)tasks;
        node -= (int)times;
        list = *end ? end + 1 : end;
    }
    return 0;
}

static Status slurm_local(int *n_local)
{
    int node = 0;
    TRY(number(&node, "SLURM_NODEID", 0));
    const char *list = address_variable("SLURM_STEP_TASKS_PER_NODE");
    if (!list) return OK;
    *n_local = tasks_of_node(list, node);
    if (*n_local) return OK;
    return FAIL(ERR_USAGE, "SLURM_STEP_TASKS_PER_NODE is \"%s\", expected the tasks of node %d",
                list, node);
}

/* Ranks set by hand: on one host unless MASTER_ADDR is another. */
static bool one_host(void)
{
    const char *master = address_variable("MASTER_ADDR");
    return !master || !strcmp(master, "localhost") || !strcmp(master, "127.0.0.1") ||
           !strcmp(master, "::1");
}

static Status missing(const char *name, const char *but)
{
    return FAIL(ERR_USAGE, "%s is not set, but %s is: several ranks need both", name, but);
}

static Status read_place(CommPlace *p, const Names *by)
{
    *p = (CommPlace){.rank = -1, .world = -1, .local = -1, .n_local = -1, .found_by = by->found_by};
    TRY(number(&p->world, by->world, 1));
    TRY(number(&p->rank, by->rank, 0));
    TRY(number(&p->local, by->local, 0));
    if (by->n_local) TRY(number(&p->n_local, by->n_local, 1));
    else TRY(slurm_local(&p->n_local));
    if (p->world < 0) return missing(by->world, by->rank);
    if (p->rank < 0) return missing(by->rank, by->world);
    if (p->rank >= p->world)
        return FAIL(ERR_USAGE, "%s is %d, expected less than %s, which is %d", by->rank, p->rank,
                    by->world, p->world);
    bool together = p->world == 1 || (by == &torchrun && one_host());
    if (p->local < 0 && together) p->local = p->rank;
    if (p->n_local < 0 && together) p->n_local = p->world;
    if (p->local < 0) return missing(by->local, by->rank);
    if (p->n_local < 0)
        return missing(by->n_local ? by->n_local : "SLURM_STEP_TASKS_PER_NODE", by->rank);
    if (p->local >= p->n_local || p->n_local > p->world)
        return FAIL(ERR_USAGE, "%s says rank %d of %d, but number %d of %d on this host",
                    by->found_by, p->rank, p->world, p->local, p->n_local);
    return OK;
}

/* A variable set by hand beside a launcher's. */
static Status agrees(const char *name, int launched, const char *launcher)
{
    int hand = launched;
    TRY(number(&hand, name, 0));
    if (hand == launched) return OK;
    return FAIL(ERR_USAGE, "%s is %d, but %s says %d: expected one of the two, or both alike", name,
                hand, launcher, launched);
}

Status comm_place(CommPlace *p)
{
    const Names *launcher = address_variable(mpirun.world) ? &mpirun
                            : address_variable(srun.world) ? &srun
                                                           : NULL;
    bool by_hand = address_variable(torchrun.world) || address_variable(torchrun.rank);
    CommPlace found = {.world = 1, .n_local = 1, .found_by = "alone"};
    if (launcher && !(by_hand && address_variable("TORCHELASTIC_RUN_ID"))) {
        TRY(read_place(&found, launcher));
        TRY(agrees(torchrun.rank, found.rank, launcher->rank));
        TRY(agrees(torchrun.world, found.world, launcher->world));
    } else if (by_hand) {
        TRY(read_place(&found, &torchrun));
    }
    *p = found;
    return OK;
}
