/* ptx_run.cpp - a thread's frame and the loop over instructions.
 *
 * Thread memory holds, for each function that is active in the thread, its slots and then its local
 * memory; the arguments of a call lie before the frame of what is called.
 */
#include "ptx.h"
#include <algorithm>

namespace hostcuda {

namespace {

const Launch *running; /* one at a time: launches are synchronous */

size_t slot_bytes(const Function &f) { return align_up(f.image.size() * sizeof(uint64_t), 16); }

uint64_t fixed_value(const Fixup &x, const Frame &frame)
{
    uint32_t rank = special.cluster_ctarank << 24;
    switch (x.base) {
    case Base::SPECIAL: return *x.source;
    case Base::ARGUMENTS: return (uint64_t)frame.arguments + (uint64_t)x.offset;
    case Base::LOCAL: return (uint64_t)frame.local + (uint64_t)x.offset;
    case Base::SHARED: {
        int position = running->module->shared[x.which].position;
        return running->kernel.shared[position].address + rank;
    }
    default: return running->kernel.dynamic_address + rank;
    }
}

void run_frame(const Function &f, char *arguments, char *memory)
{
    Frame frame;
    frame.function = &f;
    frame.slot = (uint64_t *)memory;
    frame.arguments = arguments;
    frame.local = memory + slot_bytes(f);
    frame.spare = frame.local + align_up(f.local_bytes, 16);
    memcpy(frame.slot, f.image.data(), f.image.size() * sizeof(uint64_t));
    memset(frame.local, 0xff, f.local_bytes);
    for (const Fixup &x : f.fixups) frame.slot[x.slot] = fixed_value(x, frame);
    for (const Inst *i = f.code.data(); i; i = frame.next) {
        frame.next = i + 1;
        if ((frame.slot[i->guard] & 1) == i->wanted) i->run(frame, *i);
    }
}

void run_thread(void *context)
{
    Launch *launch = (Launch *)context;
    run_frame(*launch->function, launch->base(), (char *)thread_memory());
}

/* Every function that f reaches, itself first. */
void reach(const Function *f, std::vector<const Function *> &list)
{
    if (std::find(list.begin(), list.end(), f) != list.end()) return;
    list.push_back(f);
    for (const Function *g : f->callees) reach(g, list);
}

} // namespace

size_t frame_bytes(const Function &f)
{
    size_t deepest = 0;
    for (const Function *g : f.callees) {
        if (g == &f) ptx_die(f.name + ": recursion is not for kernels");
        deepest = std::max(deepest, align_up(g->parameter_bytes, 16) + frame_bytes(*g));
    }
    return slot_bytes(f) + align_up(f.local_bytes, 16) + deepest;
}

void call_function(const Function &f, char *arguments, char *memory)
{
    run_frame(f, arguments, memory);
}

bool is_own_memory(const void *p)
{
    const char *c = (const char *)p, *memory = (const char *)thread_memory();
    if (c >= memory && c < memory + running->kernel.thread_bytes) return true;
    const std::vector<char> &a = running->arguments;
    return c >= a.data() && c < a.data() + a.size();
}

void prepare_launch(Launch &launch)
{
    const Function &f = *launch.function;
    Kernel &k = launch.kernel;
    std::vector<const Function *> functions;
    reach(&f, functions);
    k.name = f.name.c_str();
    k.body = run_thread;
    k.context = &launch;
    k.max_threads = f.max_threads;
    if (!k.registers) k.registers = (int)f.registers;
    k.thread_bytes = frame_bytes(f);
    k.shared.clear();
    std::vector<int> used;
    for (const Function *g : functions) {
        k.dynamic_align = std::max(k.dynamic_align, g->dynamic_align);
        for (int which : g->shared)
            if (std::find(used.begin(), used.end(), which) == used.end()) used.push_back(which);
    }
    for (int which : used) {
        Module::SharedArray &a = launch.module->shared[which];
        a.position = (int)k.shared.size();
        k.shared.push_back({a.bytes, a.align, 0});
    }
    running = &launch;
}

} // namespace hostcuda
