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
    /* A part of the report, or of the one in other schedules; "": a wrong result may be all. */
    const char *finding, *or_finding;
};
struct Cases {
    const Case *list;
    int count;
};
Cases ampere_cases();
Cases hopper_cases();
/* Streams, graphs, events, ordered failures: the number of failed checks. */
int runtime_checks();
