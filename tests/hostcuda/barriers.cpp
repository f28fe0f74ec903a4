/* barriers.cpp - bar, barrier.cluster and setmaxnreg.
 *
 * bar.sync without a count waits for the threads of the CTA that have not exited, as the chip does.
 * bar.arrive only hands its thread's past to the waiters; it learns nothing itself.
 * Registers: a CTA owns threads x registers-per-thread from launch on; dec gives back, inc waits.
 */
#include "check.h"

#include <algorithm>

namespace hostcuda
{

static constexpr int REGISTER_FILE = 65536;

/* ---- bar ---- */

static void release(Barrier &b)
{
    std::copy(b.sum, b.sum + 3, b.result);
    clock_join(b.waiters.data(), (int)b.waiters.size());
    for (int t : b.waiters) {
        if (b.has_arrivals) clock_acquire(&b, t);
        if (machine.threads[t].state == State::BARRIER) make_ready(machine.threads[t]);
    }
    if (b.has_arrivals) clock_forget(&b);
    b.arrived = 0;
    b.has_arrivals = false;
    b.waiters.clear();
}

static void check_arrival(const Barrier &b, int id, int threads, At at)
{
    if (threads % LANES)
        trap(at, "barrier %d: thread count %d is not a multiple of the warp", id, threads);
    if (b.arrived && b.needed != threads)
        trap(at, "barrier %d: thread count %d, but %d at %s", id, threads, b.needed,
             place(b.at).c_str());
    if (b.arrived && id == 0 && b.at->line != at->line)
        trap(at, "divergent __syncthreads: others wait at %s", place(b.at).c_str());
}

/* True when the last of the expected threads has come. */
static bool arrive(int id, int threads, bool predicate, At at)
{
    if (id < 0 || id >= N_BARRIERS) trap(at, "barrier %d: ids are 0 to 15", id);
    Barrier &b = machine.current->cta->barrier[id];
    check_arrival(b, id, threads, at);
    if (b.arrived == 0) {
        b.needed = threads;
        b.at = at;
        b.sum[(int)Reduce::POPC] = b.sum[(int)Reduce::OR] = 0;
        b.sum[(int)Reduce::AND] = 1;
    }
    b.sum[(int)Reduce::POPC] += predicate;
    b.sum[(int)Reduce::AND] &= predicate;
    b.sum[(int)Reduce::OR] |= predicate;
    b.arrived++;
    return b.arrived == (threads ? threads : machine.current->cta->n_live);
}

int bar_reduce(int id, int threads, Reduce kind, bool predicate, At at)
{
    const bool complete = arrive(id, threads, predicate, at);
    Barrier &b = machine.current->cta->barrier[id];
    b.waiters.push_back(machine.current->index);
    if (complete) release(b);
    else block_on(State::BARRIER, id ? "bar.sync" : "__syncthreads", at);
    return b.result[(int)kind]; /* the next completion needs this thread, too */
}

void bar_sync(int id, int threads, At at) { bar_reduce(id, threads, Reduce::OR, false, at); }

void bar_arrive(int id, int threads, At at)
{
    if (threads == 0) trap(at, "bar.arrive needs a thread count");
    const bool complete = arrive(id, threads, false, at);
    Barrier &b = machine.current->cta->barrier[id];
    clock_release(&b, machine.current->index);
    b.has_arrivals = true;
    if (complete) release(b);
}

/* ---- barrier.cluster ---- */

/* Two objects, because arrivals of the next phase may come before everyone has left this one. */
static const void *cluster_object(int phase)
{
    static const char objects[2] = {};
    return &objects[phase & 1];
}

static void cluster_complete()
{
    machine.cluster_arrived = 0;
    machine.cluster_phase++;
    for (Thread &t : machine.threads)
        if (t.state == State::CLUSTER) make_ready(t);
}

void cluster_arrive(At at)
{
    Thread &t = *machine.current;
    if (t.cluster_phase >= 0) trap(at, "barrier.cluster.arrive twice without a wait");
    t.cluster_phase = machine.cluster_phase;
    clock_release(cluster_object(t.cluster_phase), t.index);
    if (++machine.cluster_arrived == machine.n_live) cluster_complete();
}

void cluster_wait(At at)
{
    Thread &t = *machine.current;
    if (t.cluster_phase < 0) trap(at, "barrier.cluster.wait without an arrive");
    if (t.cluster_phase == machine.cluster_phase)
        block_on(State::CLUSTER, "barrier.cluster.wait", at);
    clock_acquire(cluster_object(t.cluster_phase), t.index);
    t.cluster_phase = -1;
    t.known_ranks = FULL_MASK;
}

/* ---- setmaxnreg ---- */

static int initial_registers()
{
    if (machine.kernel->registers) return (machine.kernel->registers + 7) / 8 * 8;
    return std::min(256, REGISTER_FILE / ((int)special.nwarpid * LANES) / 8 * 8);
}

static bool take_registers(Warp &w, Cta &cta)
{
    const int extra = (w.wanted - w.registers) * LANES;
    if (extra > cta.free_registers) return false;
    cta.free_registers -= extra;
    w.registers = w.wanted;
    return true;
}

static void give_registers(Cta &cta)
{
    for (int i = 0; i < machine.cta_threads; i++) {
        Thread &t = machine.threads[cta.first + i];
        if (t.state == State::REGISTERS) make_ready(t);
    }
}

void set_max_registers(bool increase, int count, At at)
{
    Warp &w = *machine.current->warp;
    Cta &cta = *machine.current->cta;
    if (count < 24 || count > 256 || count % 8)
        trap(at, "setmaxnreg %d: counts are multiples of 8 from 24 to 256", count);
    collective(w.exist, OP_SETMAXNREG, true, nullptr, at, [](Collective &, Warp &, At) {});
    if (w.registers == count) return; /* another lane has done it */
    if (increase ? count < w.registers : count > w.registers)
        trap(at, "setmaxnreg.%s to %d, but the warp has %d registers", increase ? "inc" : "dec",
             count, w.registers);
    w.wanted = count;
    while (w.registers != count && !take_registers(w, cta))
        block_on(State::REGISTERS, increase ? "setmaxnreg.inc" : "setmaxnreg.dec", at);
    if (!increase) give_registers(cta);
}

/* ---- life of a CTA ---- */

void barriers_begin()
{
    machine.cluster_arrived = machine.cluster_phase = 0;
    for (Cta &cta : machine.ctas) {
        for (Barrier &b : cta.barrier) {
            b.arrived = 0;
            b.has_arrivals = false;
            b.waiters.clear();
        }
        cta.free_registers = 0;
    }
    for (Warp &w : machine.warps) w.registers = initial_registers();
}

void barriers_thread_exits(Thread &thread)
{
    for (Barrier &b : thread.cta->barrier)
        if (b.arrived && b.needed == 0 && b.arrived == thread.cta->n_live) release(b);
    if (thread.cluster_phase == machine.cluster_phase)
        machine.cluster_arrived--; /* it has arrived and left without waiting */
    if (machine.cluster_arrived && machine.cluster_arrived == machine.n_live) cluster_complete();
}

} // namespace hostcuda
