/* core.h - the state of the simulated GPU, shared by the files that implement machine.h.
 *
 * There is one machine per process and one OS thread runs it, so its state is one global object. A
 * cluster (usually of one CTA) is resident at a time; thread indices count through its CTAs.
 */
#ifndef HOSTCUDA_CORE_H
#define HOSTCUDA_CORE_H

#include "machine.h"

#include <functional>
#include <string>

namespace hostcuda
{

constexpr int LANES = 32;
constexpr int MAX_CLUSTER = 16;
constexpr int N_BARRIERS = 16;
constexpr uint32_t FULL_MASK = 0xffffffffu;
constexpr size_t MAX_STATIC_SHARED = 48 * 1024, MAX_SHARED = 232448; /* 227 KiB, as on sm_90 */

/* for (uint32_t lane : Lanes{mask}) */
struct Lanes {
    uint32_t mask;
    struct Iterator {
        uint32_t rest;
        uint32_t operator*() const { return (uint32_t)__builtin_ctz(rest); }
        void operator++() { rest &= rest - 1; }
        bool operator!=(const Iterator &o) const { return rest != o.rest; }
    };
    Iterator begin() const { return {mask}; }
    Iterator end() const { return {0}; }
};

enum class State : uint8_t { READY, BARRIER, WARP, MBARRIER, CLUSTER, REGISTERS, DONE };

struct Warp;
struct Cta;
using Action = std::function<void()>;

/* One cp.async in flight. */
struct CopyInFlight {
    char *shared;
    const char *global;
    int bytes, source_bytes;
    At at;
    bool landed; /* copied at issue ("early"), still pending for the checker */
};

/* One bulk store: `read` takes the bytes out of shared memory, `write` puts them to memory. */
struct BulkStore {
    Action read, write;
    At at;
    bool has_read = false;
};

struct Thread {
    void *stack_pointer;
    Index3 tid;
    int index, lane, rank; /* index in the cluster; rank: priority of the scheduler */
    Warp *warp;
    Cta *cta;
    char *memory;
    State state;
    At at; /* where and for what it waits */
    const char *waits_for;
    uint64_t *bar; /* mbarrier and parity it waits for */
    uint32_t parity;
    std::vector<CopyInFlight> copies;
    std::vector<std::vector<CopyInFlight>> copy_groups;
    std::vector<BulkStore> bulk;
    std::vector<std::vector<BulkStore>> bulk_groups;
    bool wgmma_fenced;
    int cluster_phase;    /* phase it has arrived in and not waited for, or -1 */
    uint32_t known_ranks; /* CTAs it may access: known to have started */
};

/* A warp collective that some of its lanes have reached. */
struct Collective {
    uint32_t mask = 0, arrived = 0;
    int op = 0;
    At at = nullptr;
    void *argument[LANES];
};

struct Warp {
    int id, first; /* index in the CTA; machine index of lane 0 */
    uint32_t exist, exited;
    Collective collective[8];
    std::vector<Action> wgmmas; /* end of the reads of operands */
    std::vector<std::vector<Action>> wgmma_groups;
    int registers, wanted; /* setmaxnreg, per thread */
};

struct Barrier {
    int arrived = 0, needed = 0, result[3] = {};
    int sum[3] = {};
    At at = nullptr;
    bool has_arrivals = false; /* some came by bar.arrive */
    std::vector<int> waiters;
};

struct Cta {
    int rank, first, n_live; /* rank in the cluster; index of thread 0; threads not exited */
    Index3 ctaid;
    char *shared; /* first byte of its arena */
    Barrier barrier[N_BARRIERS];
    int free_registers;
};

struct Machine {
    Kernel *kernel;
    LaunchConfig config;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<Cta> ctas;
    int cta_threads, n_live;
    std::vector<uint64_t> ready; /* bit set of ready ranks */
    std::vector<int> by_rank;
    Thread *current;
    void *main_stack;
    std::vector<Action> engine; /* asynchronous copies in flight */
    int cluster_arrived, cluster_phase;
    size_t shared_used; /* bytes of the arena from SHARED_WINDOW on */
    uint64_t random, spins;
    bool failed; /* of the running cluster */
};
extern Machine machine;

struct Settings {
    int schedule, async, stats, check;
    uint64_t seed;
    bool abort;
};
extern Settings settings; /* report.cpp */

struct Counts {
    uint64_t launches, blocks, threads, switches, mmas;
};
extern Counts counts;

/* ---- report.cpp ---- */
std::string place(At at);
/* Records a finding without ending the thread; the launch fails. */
void record(At at, const Thread *thread, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool has_failed(); /* a finding since the launch began */
void clear_error();

/* ---- scheduler.cpp ---- */
bool run_cluster(Index3 clusterid); /* false: failed */
/* Blocks the running thread until another one makes it ready. */
void block_on(State state, const char *what, At at);
void make_ready(Thread &thread);
[[noreturn]] void stop_cluster(); /* abandons all fibers */
void spin(At at);                 /* a poll that failed */
uint64_t random_next();
/* The choice between "lands now" and "lands later" of one asynchronous operation. */
bool choose_late();
void engine_push(Action action);

/* ---- barriers.cpp, setmaxnreg included ---- */
void barriers_begin();
void barriers_thread_exits(Thread &thread);

/* ---- warp.cpp ---- */
enum Op {
    OP_SYNC,
    OP_SHUFFLE,
    OP_VOTE,
    OP_MATCH,
    OP_REDUX,
    OP_ELECT,
    OP_LDMATRIX,
    OP_STMATRIX,
    OP_MOVMATRIX,
    OP_MMA,
    OP_WGMMA,
    OP_SETMAXNREG,
    N_OPS
};
const char *op_name(int op);
/* Every lane of mask has to come with the same op; the last one runs `complete` for all.
 * aligned: all have to come from the same source line. */
using Complete = void (*)(Collective &, Warp &, At at);
void collective(uint32_t mask, Op op, bool aligned, void *argument, At at, Complete complete);
void warp_lane_exits(Thread &thread);
inline Thread &lane_thread(const Warp &warp, int lane)
{
    return machine.threads[warp.first + lane];
}

/* ---- mbarrier.cpp, tma.cpp ---- */
void mbarrier_finish_bytes(uint64_t *bar, int bytes); /* complete_tx by the async engine */
void mbarrier_must_exist(uint64_t *bar, const char *op, At at);
void mbarrier_add_pending(uint64_t *bar, int count, At at);
void mbarrier_arrive_for(int thread, uint64_t *bar, int count, At at);
void bulk_thread_exits(Thread &thread);
void cp_async_thread_exits(const Thread &thread);

/* ---- matrix.cpp ---- */
float mma_value(MmaType type, uint32_t bits); /* 16-bit types in the low half */

/* ---- memory.cpp ---- */
bool layout_shared(Kernel &kernel, size_t dynamic_bytes); /* false: does not fit */
bool in_shared(const void *p, size_t bytes); /* wholly in one variable of a resident CTA */
void shared_begin();                         /* fills the arenas with 0xFF */
void need_shared(const void *p, size_t bytes, size_t align, const char *op, At at);
void need_own_shared(const void *p, size_t bytes, size_t align, const char *op, At at);
void need_global(const void *p, size_t bytes, size_t align, const char *op, At at);

} // namespace hostcuda
#endif
