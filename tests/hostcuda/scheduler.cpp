/* scheduler.cpp - fibers and the order in which they run; launching a grid.
 *
 * Each CUDA thread has its own stack; a switch saves six registers (x86-64 System V) and costs
 * about 25 ns with the choice of the next thread. A thread runs until it blocks, so the schedules
 * differ in who is chosen then: HOSTCUDA_SCHED 0 the lowest thread, 1 the highest, 2 a random one,
 * 3 by random priorities of warps. When nobody can run, one asynchronous copy completes.
 */
#include "check.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>

#ifndef __x86_64__
#error "hostcuda_switch is written for x86-64"
#endif

extern "C" void hostcuda_switch(void **save, void *to);
asm(".text\n.globl hostcuda_switch\n.type hostcuda_switch,@function\nhostcuda_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
    ".size hostcuda_switch,.-hostcuda_switch\n");

namespace hostcuda
{

Machine machine;
SpecialRegisters special;

static constexpr size_t STACK_BYTES = 256 * 1024, PAGE = 4096;
/* Stacks that begin at the same offset would compete for the same lines of the caches. */
static constexpr int STAGGER = 64, STAGGER_BYTES = 1088;
static constexpr uint64_t MAX_SPINS = 2000000;

uint64_t random_next()
{
    uint64_t &r = machine.random;
    r ^= r << 13;
    r ^= r >> 7;
    r ^= r << 17;
    return r;
}

uint64_t clock_now() { return counts.switches; }

/* ---- asynchronous operations ---- */

bool choose_late() { return settings.async == 1 || (settings.async == 2 && (random_next() & 1)); }

void engine_push(Action action) { machine.engine.push_back(std::move(action)); }

static void engine_step(size_t which)
{
    Action action = std::move(machine.engine[which]);
    machine.engine.erase(machine.engine.begin() + (ptrdiff_t)which);
    action();
}

/* ---- choosing a thread ---- */

void make_ready(Thread &t)
{
    t.state = State::READY;
    machine.ready[t.rank >> 6] |= 1ull << (t.rank & 63);
}

static void clear_ready(Thread &t) { machine.ready[t.rank >> 6] &= ~(1ull << (t.rank & 63)); }

static Thread *first_ready(int start)
{
    const int words = (int)machine.ready.size();
    for (int k = 0; k <= words; k++) {
        int w = (start >> 6) + k;
        w = w >= words ? w - words : w;
        uint64_t bits = machine.ready[w];
        if (k == 0) bits &= ~0ull << (start & 63);
        if (bits) return &machine.threads[machine.by_rank[w * 64 + __builtin_ctzll(bits)]];
    }
    return nullptr;
}

static Thread *choose(bool at_random)
{
    std::vector<Action> &engine = machine.engine;
    if (settings.async == 2 && !engine.empty() && random_next() % 8 == 0)
        engine_step(random_next() % engine.size());
    for (;;) {
        int start = at_random ? (int)(random_next() % machine.threads.size()) : 0;
        if (Thread *t = first_ready(start)) return t;
        if (engine.empty()) return nullptr;
        engine_step(settings.async == 0 ? 0 : random_next() % engine.size());
    }
}

/* ---- switching ---- */

static void enter_cta(const Cta &cta)
{
    special.ctaid = cta.ctaid;
    special.cluster_ctarank = (uint32_t)cta.rank;
    const dim3 c = machine.config.cluster;
    special.cluster_ctaid = {cta.rank % c.x, cta.rank / c.x % c.y, cta.rank / (c.x * c.y)};
}

static void enter_thread(const Thread &t)
{
    special.tid = t.tid;
    special.laneid = (uint32_t)t.lane;
    special.warpid = (uint32_t)t.warp->id;
    const uint32_t bit = 1u << t.lane;
    special.lanemask_eq = bit;
    special.lanemask_lt = bit - 1;
    special.lanemask_le = bit | (bit - 1);
    special.lanemask_gt = ~special.lanemask_le;
    special.lanemask_ge = ~special.lanemask_lt;
    if (machine.ctas.size() > 1) enter_cta(*t.cta);
}

static void jump(void **save, Thread *to)
{
    counts.switches++;
    machine.current = to;
    if (to) enter_thread(*to);
    hostcuda_switch(save, to ? to->stack_pointer : machine.main_stack);
}

static void give_way()
{
    Thread *me = machine.current;
    Thread *next = choose(settings.schedule == 2);
    if (next != me) jump(&me->stack_pointer, next);
}

void block_on(State state, const char *what, At at)
{
    Thread &t = *machine.current;
    machine.spins = 0;
    t.state = state;
    t.waits_for = what;
    t.at = at;
    clear_ready(t);
    give_way();
}

void stop_cluster()
{
    machine.failed = true;
    Thread *me = machine.current;
    if (!me) abort(); /* an asynchronous operation completes outside of any thread */
    jump(&me->stack_pointer, nullptr);
    abort();
}

void spin(At at)
{
    if (++machine.spins > MAX_SPINS) trap(at, "livelock: 2 million polls without progress");
    if (!machine.engine.empty() && random_next() % 4 == 0)
        engine_step(random_next() % machine.engine.size());
    Thread *me = machine.current;
    Thread *next = choose(true);
    if (next && next != me) jump(&me->stack_pointer, next);
}

void nanosleep(At at) { spin(at); }

void *thread_memory() { return machine.current->memory; }

static void fiber_main()
{
    machine.kernel->body(machine.kernel->context);
    Thread &t = *machine.current;
    warp_lane_exits(t);
    cp_async_thread_exits(t);
    bulk_thread_exits(t);
    t.state = State::DONE;
    t.warp->exited |= 1u << t.lane;
    t.cta->n_live--;
    machine.n_live--;
    clear_ready(t);
    barriers_thread_exits(t);
    give_way();
    abort();
}

/* ---- setting up a cluster ---- */

static char *new_stack()
{
    void *p = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || mprotect(p, PAGE, PROT_NONE) != 0) abort();
    return static_cast<char *>(p);
}

/* Stacks and thread memories are kept from launch to launch. */
static std::vector<char *> stacks;
static std::vector<char *> memories;
static size_t memory_bytes;

static void provide_memories(size_t n_threads, size_t bytes)
{
    while (stacks.size() < n_threads) stacks.push_back(new_stack());
    bytes = (bytes + 63) / 64 * 64;
    if (bytes > memory_bytes) {
        for (char *p : memories) free(p);
        memories.clear();
        memory_bytes = bytes;
    }
    while (memories.size() < n_threads)
        memories.push_back(
            static_cast<char *>(aligned_alloc(64, memory_bytes ? memory_bytes : 64)));
}

static void init_thread(Thread &t, int index, Cta &cta)
{
    const dim3 b = machine.config.block;
    const unsigned i = (unsigned)(index - cta.first);
    t.index = index;
    t.lane = (int)i % LANES;
    t.cta = &cta;
    t.warp = &machine.warps[cta.rank * special.nwarpid + i / LANES];
    t.tid = {i % b.x, i / b.x % b.y, i / (b.x * b.y)};
    t.memory = memories[index];
    t.copies.clear();
    t.copy_groups.clear();
    t.bulk.clear();
    t.bulk_groups.clear();
    t.wgmma_fenced = false;
    t.cluster_phase = -1;
    t.known_ranks = 1u << cta.rank;
    char *top = stacks[index] + STACK_BYTES - index % STAGGER * STAGGER_BYTES;
    void **sp = reinterpret_cast<void **>(top);
    *--sp = nullptr;
    *--sp = reinterpret_cast<void *>(fiber_main);
    for (int k = 0; k < 6; k++) *--sp = nullptr;
    t.stack_pointer = sp;
}

static void init_warps(Cta &cta)
{
    for (int i = 0; i < (int)special.nwarpid; i++) {
        Warp &w = machine.warps[cta.rank * special.nwarpid + i];
        const int n = std::min(LANES, machine.cta_threads - i * LANES);
        w = Warp();
        w.id = i;
        w.first = cta.first + i * LANES;
        w.exist = n == LANES ? FULL_MASK : (1u << n) - 1;
    }
}

/* Priorities: rank 0 is chosen first. */
static void rank_threads()
{
    const int n = (int)machine.threads.size(), n_warps = (int)machine.warps.size();
    machine.by_rank.assign((n + 63) / 64 * 64, 0);
    machine.ready.assign((n + 63) / 64, 0);
    std::vector<int> order(n_warps);
    for (int i = 0; i < n_warps; i++) order[i] = i;
    const bool by_warp = settings.schedule == 3 && machine.cta_threads % LANES == 0;
    for (int i = n_warps; by_warp && i-- > 1;)
        std::swap(order[i], order[random_next() % (uint64_t)(i + 1)]);
    const int flip = (int)(settings.seed & 31);
    for (int i = 0; i < n; i++) {
        int rank = settings.schedule == 1 ? n - 1 - i : i;
        if (by_warp) rank = order[i / LANES] * LANES + ((i % LANES) ^ flip);
        machine.threads[i].rank = rank;
        machine.by_rank[rank] = i;
        make_ready(machine.threads[i]);
    }
}

static void init_cluster(Index3 id)
{
    const dim3 c = machine.config.cluster;
    const int n_ctas = (int)(c.x * c.y * c.z), n = n_ctas * machine.cta_threads;
    special.clusterid = id;
    machine.ctas.resize(n_ctas);
    machine.warps.resize(n_ctas * special.nwarpid);
    machine.threads.resize(n);
    provide_memories(n, machine.kernel->thread_bytes);
    for (int r = 0; r < n_ctas; r++) {
        Cta &cta = machine.ctas[r];
        cta.rank = r;
        cta.first = r * machine.cta_threads;
        cta.n_live = machine.cta_threads;
        cta.ctaid = {id.x * c.x + r % c.x, id.y * c.y + r / c.x % c.y,
                     id.z * c.z + r / (c.x * c.y)};
        cta.shared = shared_pointer(SHARED_WINDOW + ((uint32_t)r << 24));
        init_warps(cta);
        for (int i = 0; i < machine.cta_threads; i++)
            init_thread(machine.threads[cta.first + i], cta.first + i, cta);
    }
    machine.n_live = n;
    machine.failed = false;
    machine.engine.clear();
    machine.spins = 0;
    rank_threads();
    barriers_begin();
    shared_begin();
    enter_cta(machine.ctas[0]);
}

static void record_deadlock()
{
    std::map<std::string, int> groups;
    const Thread *one = nullptr;
    for (const Thread &t : machine.threads) {
        const bool done = t.state == State::DONE;
        groups[done ? "exited" : std::string("wait in ") + t.waits_for + " at " + place(t.at)]++;
        if (!done && !one) one = &t;
    }
    std::string text;
    for (const auto &g : groups)
        text += (text.empty() ? " " : ", ") + std::to_string(g.second) + " threads " + g.first;
    record(one ? one->at : nullptr, one, "deadlock:%s", text.c_str());
}

bool run_cluster(Index3 clusterid)
{
    init_cluster(clusterid);
    counts.blocks += machine.ctas.size();
    counts.threads += machine.threads.size();
    clock_cluster_begin((int)machine.threads.size());
    check_cluster_begin();
    jump(&machine.main_stack, choose(settings.schedule == 2));
    while (!machine.failed && !machine.engine.empty()) engine_step(0);
    stats_cluster_end();
    if (!machine.failed && machine.n_live > 0) record_deadlock();
    return !has_failed();
}

} // namespace hostcuda
