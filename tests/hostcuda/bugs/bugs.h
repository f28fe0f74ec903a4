/* bugs.h - small kernels, each right or with one planted bug, and what must be said about it. */
#pragma once
#include "hostcuda.h"
#include "hostcuda_runtime.h"
#include <cuda_runtime.h>

/* Runs it with the bug or without; false: a result is wrong. */
using Run = bool (*)(bool bug);
struct Case {
    const char *name;
    Run run;
    /* Part of the report; schedules of threads and copies differ in which of them comes first.
     * None: nothing is wrong with the accesses, and no report may come: the result must be wrong. */
    const char *finding[3];
};
struct Cases {
    const Case *list;
    int count;
};
Cases ampere_cases();
Cases hopper_cases();
/* Streams, graphs, events, ordered failures: the number of failed checks. */
int runtime_checks();
