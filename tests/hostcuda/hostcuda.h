/* hostcuda.h - settings and findings of the simulated GPU, for tests (C and C++).
 *
 * A test program that is linked with the hostcuda library instead of libcudart runs its kernels on
 * the CPU. Settings hold from the next launch on; their first values come from the environment:
 *   HOSTCUDA_SCHED  0 lowest thread first, 1 highest first, 2 random, 3 random warp priorities
 *   HOSTCUDA_ASYNC  0 copies land at issue, 1 as late as legal, 2 random, completing out of order
 *   HOSTCUDA_SEED   of the two random choices
 *   HOSTCUDA_CHECK  1 (default) races, uninitialised reads, pending copies, bounds; 0 only bounds
 *                   of shared memory
 *   HOSTCUDA_STATS  1 counts bank conflicts and sectors (2: and prints the table at exit)
 *   HOSTCUDA_KERNELS  a file to write the names of the kernels to that ran
 *   HOSTCUDA_ABORT  1 aborts at the first finding, for a debugger
 */
#ifndef HOSTCUDA_H
#define HOSTCUDA_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void hostcuda_set_schedule(int schedule);
void hostcuda_set_async(int async);
void hostcuda_set_seed(uint64_t seed);
void hostcuda_set_check(int on);
void hostcuda_set_stats(int on);

/* The first finding since hostcuda_clear(), one line, or "". */
const char *hostcuda_report(void);
int hostcuda_report_count(void);

/* Forgets findings, counts and access statistics. */
void hostcuda_clear(void);

typedef struct HostcudaCounts {
    uint64_t launches, blocks, threads, switches, mmas;
} HostcudaCounts;
HostcudaCounts hostcuda_counts(void);

/* Memory requests of warps. actual: shared-memory wavefronts or 32-byte sectors; ideal: the fewest
 * that could carry the bytes. ratio = actual / ideal, 1 is perfect, 0 means no request. */
typedef struct HostcudaStats {
    uint64_t requests, actual, ideal;
    double ratio;
} HostcudaStats;

typedef enum HostcudaKind {
    HOSTCUDA_SHARED_LOAD,
    HOSTCUDA_SHARED_STORE,
    HOSTCUDA_LDMATRIX,
    HOSTCUDA_STMATRIX,
    HOSTCUDA_GLOBAL_LOAD,
    HOSTCUDA_GLOBAL_STORE,
    HOSTCUDA_KINDS
} HostcudaKind;

/* Requests of one kind since hostcuda_clear(); needs statistics on. */
HostcudaStats hostcuda_ratio(HostcudaKind kind);

/* Those of one source line (file without folders), whether written there or inlined there.
 * Shared-memory requests count if there are any, else global ones. */
HostcudaStats hostcuda_stats(const char *file, int line);

/* Prints the table of lines to stdout. */
void hostcuda_print_stats(void);

#ifdef __cplusplus
}
#endif
#endif
