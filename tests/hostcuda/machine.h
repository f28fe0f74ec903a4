/* machine.h - what the PTX front end and the cudart subset may ask of the simulated GPU.
 *
 * The machine runs the CTAs of a grid one cluster after another on one OS thread; every CUDA thread
 * is a fiber that executes Kernel::body. The front end interprets PTX inside body and calls the
 * functions below for everything that concerns other threads, memory rules or asynchronous copies.
 * A call may switch to another fiber; all state of the interpreter has to live on the fiber's stack
 * or in thread_memory(). A fiber can be abandoned at any call (error, deadlock): no destructor
 * runs, so own no heap memory there.
 *
 * Places: every call takes `At at`, the source line of the PTX instruction. There must be ONE
 * SourceLine OBJECT PER INSTRUCTION, alive as long as the process: its address identifies the
 * instruction for the access statistics. Collectives compare file and line only.
 *
 * Addresses: a global or generic address is a host pointer. A shared address is a 32-bit number:
 * SHARED_WINDOW + offset + (rank of the CTA in its cluster << 24), so an address of .shared::cta is
 * also the right address of .shared::cluster. shared_pointer() gives the host pointer; every
 * function here takes host pointers. Shared memory starts as 0xFF bytes, and so does device memory.
 *
 * Errors of the kernel (races, bounds, deadlock, bad operands) are recorded as one line of text
 * that names kernel, file:line, block and thread; the launch then ends with cudaErrorLaunchFailure
 * and the text is in error_text().
 */
#ifndef HOSTCUDA_MACHINE_H
#define HOSTCUDA_MACHINE_H

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hostcuda {

/* ---- places ---- */
struct SourceLine {
    const char *file;         /* without folders, e.g. "mma.cuh" */
    int line;
    const SourceLine *caller; /* the call through which this line was inlined, or null */
};
using At = const SourceLine *;

/* ---- launch ---- */
struct SharedVariable {
    size_t bytes, align;
    uint32_t address; /* out: shared address in the CTA of rank 0 */
};

/* What the front end knows of a kernel. Borrowed until launch() returns. */
struct Kernel {
    const char *name;              /* for reports */
    void (*body)(void *context);   /* runs one thread; returning is the thread's exit */
    void *context;
    unsigned max_threads = 1024;   /* .maxntid product (launch bounds) */
    size_t thread_bytes = 0;       /* size of thread_memory() */
    size_t max_dynamic_shared = 48 * 1024; /* cudaFuncAttributeMaxDynamicSharedMemorySize */
    bool big_cluster = false;      /* cudaFuncAttributeNonPortableClusterSizeAllowed */
    int registers = 0;             /* .maxnreg, or 0: 65536 / threads as ptxas would choose */
    std::vector<SharedVariable> shared; /* static variables the kernel uses */
    size_t dynamic_align = 16;     /* alignment of its extern __shared__ array */
    uint32_t dynamic_address = 0;  /* out: where that array begins */
};

struct LaunchConfig {
    dim3 grid, block;
    dim3 cluster = dim3(1, 1, 1); /* .reqnctapercluster or the launch attribute */
    size_t dynamic_shared = 0;
};

/* Places the kernel's shared variables (with red zones between them), checks the configuration and
 * runs the grid. body may read the out fields of kernel: they are set before the first thread. */
cudaError_t launch(Kernel &kernel, const LaunchConfig &config);

/* Records a failure that the front end found before a launch; returns `code`. */
cudaError_t launch_refused(cudaError_t code, const char *text);

const char *error_text(); /* text of the last failure, "" after a launch that went well */

/* ---- the running thread ---- */
struct Index3 { uint32_t x, y, z; };

/* Special registers; rewritten at every switch, so take the address of a field once and read it. */
struct SpecialRegisters {
    Index3 tid, ntid, ctaid, nctaid;
    uint32_t laneid, warpid, nwarpid;
    uint32_t lanemask_eq, lanemask_lt, lanemask_le, lanemask_gt, lanemask_ge;
    Index3 clusterid, nclusterid, cluster_ctaid, cluster_nctaid;
    uint32_t cluster_ctarank, cluster_nctarank, is_explicit_cluster;
    uint32_t dynamic_smem_size, total_smem_size;
    uint32_t smid, gridid;
};
extern SpecialRegisters special;

uint64_t clock_now();                /* grows; %clock, %clock64, %globaltimer */
void *thread_memory();               /* Kernel::thread_bytes of this thread, 16-aligned */
void nanosleep(At at);               /* gives way; a polling loop has to call it */
[[noreturn]] void trap(At at, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- memory ---- */
constexpr uint32_t SHARED_WINDOW = 0x400;
extern char *shared_origin; /* host pointer of shared address 0 */
inline char *shared_pointer(uint32_t address) { return shared_origin + address; }
inline uint32_t shared_address(const void *p)
{
    return (uint32_t)(static_cast<const char *>(p) - shared_origin);
}
bool is_shared(const void *p);      /* isspacep.shared::cluster: any CTA of this cluster */
bool is_shared_own(const void *p);  /* isspacep.shared::cta */
bool is_global(const void *p);      /* isspacep.global: inside a registered region */
/* mapa / getctarank on 32-bit shared addresses; a generic one goes through shared_address(). */
uint32_t map_to_rank(uint32_t address, uint32_t rank, At at);
uint32_t rank_of(uint32_t address);

enum class Space : uint8_t { GENERIC, GLOBAL, SHARED, SHARED_CLUSTER };
enum class Access : uint8_t {
    READ,
    WRITE,
    ATOMIC,       /* read-modify-write: atom, red */
    ATOMIC_READ,  /* ld.volatile, .relaxed, .acquire */
    ATOMIC_WRITE, /* st.volatile, .relaxed; .release is a fence() before it */
};
/* Announces a load, store or atomic of `bytes` (of the whole vector: 16 for .v4.f32) BEFORE the
 * front end performs it with memcpy. Checks alignment and bounds always, races and initialisation
 * when the checker is on, and counts it for the statistics. Not for .param, .local and .const, nor
 * for generic addresses of local arrays and parameters, which only the front end knows. */
void access(const void *p, size_t bytes, Access how, Space space, At at);

enum class Scope : uint8_t { CTA, CLUSTER, GPU, SYSTEM };
void fence(Scope scope, At at);  /* membar, fence.sc, fence.acq_rel */
void fence_proxy_async(At at);   /* fence.proxy.async and fence.mbarrier_init */

/* ---- block and cluster barriers ---- */
enum class Reduce : uint8_t { POPC, AND, OR };
void bar_sync(int id, int threads, At at);   /* threads 0: all of the block */
void bar_arrive(int id, int threads, At at);
int bar_reduce(int id, int threads, Reduce kind, bool predicate, At at);
void cluster_arrive(At at);      /* barrier.cluster.arrive (release) */
void cluster_wait(At at);        /* barrier.cluster.wait (acquire) */
/* setmaxnreg.{inc,dec}: inc waits until the CTA's pool holds enough registers. */
void set_max_registers(bool increase, int count, At at);

/* ---- warp collectives ---- */
void warp_sync(uint32_t mask, At at);
enum class Shuffle : uint8_t { IDX, UP, DOWN, BFLY };
/* b and c as in PTX shfl.sync; *in_range (may be null) is its predicate. */
uint32_t shuffle(Shuffle kind, uint32_t mask, uint32_t value, uint32_t b, uint32_t c,
                 bool *in_range, At at);
uint32_t vote(uint32_t mask, bool predicate, At at); /* the ballot */
uint32_t match_any(uint32_t mask, uint64_t value, At at);
uint32_t match_all(uint32_t mask, uint64_t value, bool *all, At at);
enum class Redux : uint8_t { ADD, MIN_S, MAX_S, MIN_U, MAX_U, AND, OR, XOR };
uint32_t redux(Redux kind, uint32_t mask, uint32_t value, At at);
bool elect(uint32_t mask, uint32_t *leader, At at);
uint32_t active_mask(); /* lanes that have not exited */

/* ---- tensor cores of a warp ---- */
/* ldmatrix/stmatrix m8n8.b16, count 1, 2 or 4; row is this lane's row address (as in PTX). */
void ldmatrix(uint32_t *registers, int count, bool transposed, const void *row, At at);
void stmatrix(const uint32_t *registers, int count, bool transposed, void *row, At at);
void movmatrix(uint32_t *d, uint32_t a, At at); /* movmatrix.sync.m8n8.trans.b16 */
enum class MmaType : uint8_t { BF16, F16, TF32 };
/* mma.sync m16n8k<depth>, f32 accumulators: depth 8 or 16 for BF16 and F16, 4 or 8 for TF32.
 * Fragments as in PTX; d may be c. */
void mma(MmaType type, int depth, float d[4], const uint32_t *a, const uint32_t *b,
         const float c[4], At at);

/* ---- cp.async ---- */
/* The first source_bytes are copied, the rest of `bytes` (4, 8, 16) is zero. */
void cp_async(void *shared, const void *global, int bytes, int source_bytes, At at);
void cp_async_commit(At at);
void cp_async_wait(int groups_left, At at);          /* wait_all: 0 after a commit */
void cp_async_mbarrier_arrive(uint64_t *bar, bool noinc, At at);

/* ---- mbarrier ---- bar may lie in another CTA of the cluster where PTX allows it */
void mbarrier_init(uint64_t *bar, int count, At at);
void mbarrier_inval(uint64_t *bar, At at);
void mbarrier_expect_tx(uint64_t *bar, int bytes, At at);
void mbarrier_complete_tx(uint64_t *bar, int bytes, At at);
/* arrive, arrive.expect_tx (expect >= 0) and arrive_drop; returns the state token. */
uint64_t mbarrier_arrive(uint64_t *bar, int count, int expect, bool drop, At at);
inline uint32_t mbarrier_parity(uint64_t token) { return (uint32_t)(token >> 61 & 1); }
int mbarrier_pending_count(uint64_t token);
bool mbarrier_test(uint64_t *bar, uint32_t parity, At at); /* test_wait: does not block */
void mbarrier_wait(uint64_t *bar, uint32_t parity, At at); /* try_wait: blocks, then true */

/* ---- bulk copies and TMA ---- */
struct TensorCopy {
    const CUtensorMap *map;
    void *shared;              /* destination of a load, source of a store */
    int rank;
    int coordinate[5];         /* coordinates, innermost first */
    bool im2col = false;
    int n_offsets = 0;         /* im2col loads: rank - 2 filter offsets */
    uint16_t offset[3] = {};
    uint64_t *bar = nullptr;   /* loads */
    bool multicast = false;    /* loads: into the same offset of every CTA in cta_mask; each of */
    uint16_t cta_mask = 0;     /*   them also gets the complete_tx at the same offset as bar */
};
enum class BulkReduce : uint8_t { NONE, ADD, MIN, MAX, AND, OR, XOR };
void tensor_load(const TensorCopy &copy, At at);
void tensor_store(const TensorCopy &copy, BulkReduce reduce, At at);
/* cp.async.bulk of plain bytes. */
void bulk_load(void *shared, const void *global, uint32_t bytes, uint64_t *bar, bool multicast,
               uint16_t cta_mask, At at);
void bulk_store(void *global, const void *shared, uint32_t bytes, At at);
void bulk_to_cluster(void *remote, const void *shared, uint32_t bytes, uint64_t *remote_bar, At at);
void bulk_commit(At at);
void bulk_wait(int groups_left, bool only_reads, At at);
/* st.async.shared::cluster.mbarrier::complete_tx::bytes */
void store_async(void *remote, const void *value, int bytes, uint64_t *remote_bar, At at);

/* The driver's functions, as cudaGetDriverEntryPointByVersion hands them out. */
CUresult encode_tiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *base,
                      const cuuint64_t *dims, const cuuint64_t *strides, const cuuint32_t *box,
                      const cuuint32_t *element_strides, CUtensorMapInterleave interleave,
                      CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                      CUtensorMapFloatOOBfill fill);
CUresult encode_im2col(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *base,
                       const cuuint64_t *dims, const cuuint64_t *strides, const int *lower_corner,
                       const int *upper_corner, cuuint32_t channels_per_pixel,
                       cuuint32_t pixels_per_column, const cuuint32_t *element_strides,
                       CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                       CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill);

/* ---- wgmma ---- */
struct Wgmma {
    MmaType type;
    int n;                        /* m64 n<n> k16 (BF16, F16) or k8 (TF32) */
    float *d;                     /* n / 2 accumulators of this lane, updated in place */
    uint64_t desc_a, desc_b;
    const uint32_t *a = nullptr;  /* 4 registers when A comes from registers */
    bool scale_d = true;          /* false: d = A B */
    int scale_a = 1, scale_b = 1; /* 1 or -1 */
    bool transpose_a = false, transpose_b = false; /* the operand is MN-major */
};
/* NOTE: accumulators are final on return, because PTX may move registers before the wait and ptxas
 * undoes that. Operands in shared memory count as being read until wgmma_wait. */
void wgmma(const Wgmma &op, At at);
void wgmma_fence(At at);
void wgmma_commit(At at);
void wgmma_wait(int groups_left, At at);

/* ---- device memory, for the cudart subset ---- */
/* 256-aligned, filled with 0xFF, with guard zones; null when out of memory. */
void *device_alloc(size_t bytes);
bool device_free(void *p);               /* false: not an allocation */
bool device_contains(const void *p, size_t bytes); /* wholly inside one region */
size_t device_live_count();              /* allocations not freed */
/* Memory of the front end that kernels may touch (module variables), taken as initialised. */
void region_add(void *p, size_t bytes);
void region_remove(void *p);
void host_wrote(const void *p, size_t bytes); /* after cudaMemcpy / cudaMemset into device memory */

} // namespace hostcuda
#endif
