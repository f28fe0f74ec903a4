/* selftest.h - kernels written directly against machine.h, to test the machine without nvcc.
 *
 * A case runs one body on every thread and says what has to be found: text that the report has to
 * contain, or null for a run without findings whose `verify` holds.
 */
#ifndef HOSTCUDA_SELFTEST_H
#define HOSTCUDA_SELFTEST_H

#include "../hostcuda.h"
#include "../machine.h"

#include <cstdio>
#include <cstring>

namespace selftest
{

using namespace hostcuda;

constexpr uint32_t ALL = 0xffffffffu;
constexpr int DATA_WORDS = 4096;

/* Each use is a source line of its own. */
#define HERE                                                                                       \
    ([]() -> At {                                                                                  \
        static const SourceLine here = {__FILE__, __LINE__, nullptr};                              \
        return &here;                                                                              \
    }())

extern float *input;  /* device memory, DATA_WORDS words: input[i] = i */
extern float *data;   /* device memory, DATA_WORDS words of 0 */
extern Kernel kernel; /* the running one: kernel.shared[i].address, kernel.dynamic_address */

struct Case {
    const char *name;
    void (*body)();
    const char *finding;
    unsigned grid, block;
    unsigned cluster;
    size_t static_bytes, dynamic_bytes;
    bool (*verify)();
};

/* Memory accesses as the front end makes them. */
template <class T> T load(const void *p, At at, Space space = Space::GENERIC)
{
    T value;
    access(p, sizeof value, Access::READ, space, at);
    memcpy(&value, p, sizeof value);
    return value;
}

template <class T> void store(void *p, T value, At at, Space space = Space::GENERIC)
{
    access(p, sizeof value, Access::WRITE, space, at);
    memcpy(p, &value, sizeof value);
}

inline uint32_t atomic_add(void *p, uint32_t value, At at)
{
    uint32_t old;
    access(p, sizeof old, Access::ATOMIC, Space::GENERIC, at);
    memcpy(&old, p, sizeof old);
    const uint32_t sum = old + value;
    memcpy(p, &sum, sizeof sum);
    return old;
}

inline char *static_memory()
{
    return shared_pointer(kernel.shared[0].address + (special.cluster_ctarank << 24));
}
inline char *dynamic_memory()
{
    return shared_pointer(kernel.dynamic_address + (special.cluster_ctarank << 24));
}
inline float *static_floats() { return reinterpret_cast<float *>(static_memory()); }
inline int thread_index() { return (int)special.tid.x; }
inline float small(int i) { return (float)((i * 7 + i / 3) % 17 - 8) * 0.125f; } /* exact in bf16 */
inline uint16_t bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)(u >> 16);
}

/* Runs the case under one schedule; prints and returns false when it fails. */
bool run(const Case &c, int schedule, int async, uint64_t seed);

struct Table {
    const Case *cases;
    int n;
};
Table thread_cases(); /* barriers, warps, memory rules */
Table tensor_cases(); /* ldmatrix, mma, cp.async, statistics */
Table hopper_cases(); /* mbarrier, TMA, wgmma, setmaxnreg */
Table cluster_cases();
bool run_early_exit();

} // namespace selftest
#endif
