/* ptx_control.cpp - branches, calls, barriers of a block or cluster, and the thread's end. */
#include "ptx_decode.h"

namespace hostcuda {

namespace {

/* ---- branches; targets are filled in when all labels are known ------------------------------ */
void branch(Frame &f, const Inst &i) { f.next = f.function->code.data() + i.target; }
void decode_bra(const Words &w, Inst &i)
{
    if (w.arg.size() == 1 && !w.arg[0].name.empty()) i.run = branch;
}

void branch_indexed(Frame &f, const Inst &i)
{
    const std::vector<int> &table = f.function->branch_tables[i.list];
    uint32_t index = f.get<uint32_t>(i.a);
    if (index >= table.size()) trap(f.at(i), "brx.idx: %u of %zu targets", index, table.size());
    f.next = f.function->code.data() + table[index];
}
void decode_brx(const Words &w, Inst &i)
{
    i.a = w.slot(0);
    i.run = branch_indexed;
}

void leave(Frame &f, const Inst &) { f.next = nullptr; }
void decode_ret(const Words &, Inst &i) { i.run = leave; }

void run_trap(Frame &f, const Inst &i) { trap(f.at(i), "trap instruction"); }
void decode_trap(const Words &, Inst &i) { i.run = run_trap; }

/* ---- calls --------------------------------------------------------------------------------- */
/* lists: slots with the addresses of the results, then of the parameters */
void call(Frame &f, const Inst &i)
{
    const Function &g = *i.callee;
    const int *slot = f.list(i);
    char *arguments = f.spare;
    for (size_t k = 0; k < g.parameters.size(); k++)
        memcpy(arguments + g.parameters[k].offset, (char *)f.slot[slot[g.results.size() + k]],
               g.parameters[k].size);
    const Inst *next = f.next;
    call_function(g, arguments, arguments + align_up(g.parameter_bytes, 16));
    f.next = next;
    for (size_t k = 0; k < g.results.size(); k++)
        memcpy((char *)f.slot[slot[k]], arguments + g.results[k].offset, g.results[k].size);
}

/* __assertfail(message, file, line, function, size) */
void assertion_failed(Frame &f, const Inst &i)
{
    const char *message;
    memcpy(&message, (char *)f.slot[f.list(i)[0]], sizeof message);
    trap(f.at(i), "assertion failed: %s", message);
}

void decode_call(const Words &w, Inst &i)
{
    size_t name = !w.arg.empty() && w.arg[0].vector ? 1 : 0;
    if (name >= w.arg.size()) return;
    w.list_begin(i);
    if (name) w.append(0);
    if (w.arg.size() > name + 1) w.append(name + 1);
    if (w.arg[name].name == "__assertfail") {
        i.run = assertion_failed;
        return;
    }
    i.callee = w.module.function(w.arg[name].name);
    if (!i.callee) return;
    size_t slots = w.function.lists.size() - (size_t)i.list;
    if (slots == i.callee->parameters.size() + i.callee->results.size()) i.run = call;
}

/* ---- barriers ------------------------------------------------------------------------------ */
void sync(Frame &f, const Inst &i)
{
    bar_sync(f.get<int>(i.a), f.get<int>(i.b), f.at(i));
}
void arrive(Frame &f, const Inst &i)
{
    bar_arrive(f.get<int>(i.a), f.get<int>(i.b), f.at(i));
}
void reduce(Frame &f, const Inst &i)
{
    f.slot[i.d] = (uint32_t)bar_reduce(f.get<int>(i.a), f.get<int>(i.b), (Reduce)i.mode,
                                       f.slot[i.c] & 1, f.at(i));
}
void sync_warp(Frame &f, const Inst &i) { warp_sync(f.get<uint32_t>(i.a), f.at(i)); }
void arrive_cluster(Frame &f, const Inst &i) { cluster_arrive(f.at(i)); }
void wait_cluster(Frame &f, const Inst &i) { cluster_wait(f.at(i)); }

void decode_barrier(const Words &w, Inst &i)
{
    if (w.has("cluster")) {
        i.run = w.has("arrive") ? arrive_cluster : w.has("wait") ? wait_cluster : nullptr;
    } else if (w.has("warp")) {
        i.a = w.slot(0);
        i.run = sync_warp;
    } else if (w.has("red")) {
        i.d = w.slot(0);
        i.a = w.slot(1);
        if (w.arg.size() > 3) i.b = w.slot(2);
        i.c = w.slot(w.arg.size() - 1);
        i.mode = (uint16_t)w.choice({"popc", "and", "or"});
        i.run = reduce;
    } else {
        i.a = w.slot(0);
        if (w.arg.size() > 1) i.b = w.slot(1);
        i.run = w.has("arrive") ? arrive : w.has("sync") ? sync : nullptr;
    }
}

void sleep(Frame &f, const Inst &i) { nanosleep(f.at(i)); }
void decode_nanosleep(const Words &, Inst &i) { i.run = sleep; }

/* mode: increase */
void set_registers(Frame &f, const Inst &i)
{
    set_max_registers(i.mode, f.get<int>(i.a), f.at(i));
}
void decode_setmaxnreg(const Words &w, Inst &i)
{
    i.a = w.slot(0);
    i.mode = w.has("inc");
    i.run = set_registers;
}

const OpRow rows[] = {
    {"bra", ANY, decode_bra},         {"brx", ANY, decode_brx},
    {"ret", ANY, decode_ret},         {"exit", ANY, decode_ret},
    {"trap", ANY, decode_trap},       {"call", ANY, decode_call},
    {"bar", ANY, decode_barrier},     {"barrier", ANY, decode_barrier},
    {"nanosleep", ANY, decode_nanosleep}, {"setmaxnreg", ANY, decode_setmaxnreg},
};

} // namespace

OpTable control_ops() { return {rows, sizeof rows / sizeof *rows}; }

} // namespace hostcuda
