/* check.h - what the machine tells the checker and the access statistics.
 *
 * The checker keeps a vector clock per thread and, for every two bytes of shared and global memory,
 * the last writer, two readers and whether an asynchronous copy is under way. It finds races that
 * this schedule did not show. All functions do nothing when HOSTCUDA_CHECK is 0.
 */
#ifndef HOSTCUDA_CHECK_H
#define HOSTCUDA_CHECK_H

#include "core.h"
#include "hostcuda.h"

namespace hostcuda
{

constexpr int ENGINE = -1; /* thread index of the asynchronous copy engine */

enum class Touch : uint8_t {
    READ,
    WRITE,
    ATOMIC,
    ATOMIC_READ,
    ATOMIC_WRITE,
    ASYNC_READ,
    ASYNC_WRITE
};

/* What is known of two bytes of memory. All zero: never written. Clocks are those of this launch
 * and of earlier ones, see check_clock.cpp; 0 is none. */
struct Cell {
    uint32_t write_clock, read_clock[2];
    uint16_t writer, reader[2];
    uint8_t flags, reads_pending;
};

/* Device memory that kernels may touch, or the arena of one CTA. */
struct Region {
    char *p;
    size_t bytes;
    Cell *cells;      /* owned, made at the first checked access; one per two bytes */
    bool initialised; /* as a whole, by the host or while the checker was off */
    bool owned;       /* by device_alloc */
};
/* The global region that holds p, or null; the nearest one before or after it for reports. */
Region *find_region(const void *p);
const Region *nearest_region(const void *p);
Region *shared_region(int cta);
void for_each_region(void (*f)(Region &));

/* ---- clocks (check_clock.cpp) ---- */
void clock_launch_begin();
void clock_cluster_begin(int n_threads);
void clock_join(const int *threads, int n);         /* everyone sees everyone's past */
void clock_release(const void *object, int thread); /* ENGINE allowed */
void clock_acquire(const void *object, int thread);
void clock_forget(const void *object);
uint32_t clock_of(int thread);
uint32_t clock_cluster_start();
bool clock_knows_any(int thread, int first, int n); /* has it synchronised with one of these? */
/* Is an access of thread `other` at `time` ordered before what `thread` does now? */
bool clock_ordered(int thread, int other, uint32_t time);
void clock_advance(int thread);
void clock_fence(int thread, bool gpu);
void clock_atomic(int thread, const void *p, bool reads, bool writes);

/* ---- memory (check_memory.cpp) ---- */
void check_launch_begin();
void check_cluster_begin();
void check_touch(int thread, const void *p, size_t bytes, Touch how, At at);
void check_pending_write(const void *p, size_t bytes, bool on);
void check_pending_read(const void *p, size_t bytes, int add);
void check_fence_proxy(int thread);
/* The initialisation of a barrier object has to be ordered before its use. */
void check_object(int thread, const void *p, size_t bytes, const char *what, At at);

/* ---- statistics (stats.cpp) ---- */
void stats_access(const Thread &thread, const void *p, size_t bytes, bool store, bool shared,
                  At at);
void stats_matrix(const char *const *rows, bool store, At at); /* 8 rows of 16 bytes */
void stats_cluster_end();
void stats_clear();

} // namespace hostcuda
#endif
