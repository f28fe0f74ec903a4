/* check_memory.cpp - what is wrong with an access: races, uninitialised reads, unfinished copies.
 *
 * Cells cover two bytes. Byte-wide stores of two threads to one cell are told apart by a mask of
 * the bytes last written; of the readers only two are remembered.
 */
#include "check.h"

#include <algorithm>
#include <cstdlib>

namespace hostcuda
{

enum : uint8_t {
    INIT = 3,     /* per byte */
    LAST = 12,    /* bytes of the last write */
    PENDING = 16, /* being written by an asynchronous copy */
    BY_ATOMIC = 32,
};

static std::vector<uint32_t> proxy_fence; /* clock of each thread's last fence.proxy.async */

static bool is_write(Touch how)
{
    return how == Touch::WRITE || how == Touch::ATOMIC || how == Touch::ATOMIC_WRITE ||
           how == Touch::ASYNC_WRITE;
}

static bool is_atomic(Touch how)
{
    return how == Touch::ATOMIC || how == Touch::ATOMIC_READ || how == Touch::ATOMIC_WRITE;
}

static bool is_read(Touch how)
{
    return how == Touch::READ || how == Touch::ATOMIC || how == Touch::ATOMIC_READ ||
           how == Touch::ASYNC_READ;
}

/* The region of p with its cells made, or null. */
static Region *cells_of(const void *p)
{
    Region *r = is_shared(p) ? shared_region((int)rank_of(shared_address(p))) : find_region(p);
    if (r && !r->cells && r->bytes)
        r->cells = static_cast<Cell *>(calloc((r->bytes + 1) / 2, sizeof(Cell)));
    return r && r->cells ? r : nullptr;
}

static size_t first_cell(const Region &r, const void *p)
{
    return (size_t)(static_cast<const char *>(p) - r.p) / 2;
}

static size_t end_cell(const Region &r, const void *p, size_t bytes)
{
    return std::min(((size_t)(static_cast<const char *>(p) - r.p) + bytes + 1) / 2,
                    (r.bytes + 1) / 2);
}

/* ---- findings ---- */

namespace
{
struct Found {
    const Region *region;
    size_t cell;
    At at;
};
} // namespace

/* other: thread index, N for the copy engine, or NOBODY. */
static constexpr int NOBODY = -1;

static std::string other_thread(int other)
{
    if (other == NOBODY) return "";
    if (other >= (int)machine.threads.size()) return "; the other is the copy engine";
    const int t = other % machine.cta_threads;
    std::string text =
        "; the other is thread " + std::to_string(t) + " of warp " + std::to_string(t / LANES);
    if (machine.ctas.size() > 1)
        text += " of CTA " + std::to_string(other / machine.cta_threads) + " of the cluster";
    return text;
}

[[noreturn]] static void report(const Found &f, const char *what, int other = NOBODY)
{
    char where[80];
    const char *p = f.region->p + 2 * f.cell;
    if (is_shared(p)) snprintf(where, sizeof where, "shared address 0x%x", shared_address(p));
    else
        snprintf(where, sizeof where, "byte %zu of an allocation of %zu", 2 * f.cell,
                 f.region->bytes);
    trap(f.at, "%s (%s%s)", what, where, other_thread(other).c_str());
}

/* Threads of earlier clusters have no name any more. */
static int name_of(int thread, uint32_t time)
{
    return time >= clock_cluster_start() ? thread : NOBODY;
}

static void check_against_write(int t, const Cell &c, Touch how, uint8_t bytes, const Found &f)
{
    if (!c.write_clock || !((c.flags >> 2) & bytes)) return;
    if (!(is_atomic(how) && (c.flags & BY_ATOMIC)) && !clock_ordered(t, c.writer, c.write_clock))
        report(f,
               is_write(how) ? "data race: write after an unordered write"
                             : "data race: read of an unordered write",
               name_of(c.writer, c.write_clock));
    if (how == Touch::ASYNC_READ && c.write_clock >= clock_cluster_start() &&
        c.writer < proxy_fence.size() && proxy_fence[c.writer] < c.write_clock)
        report(f, "asynchronous read of bytes whose writer made no fence.proxy.async", c.writer);
}

static void check_cell(int t, const Cell &c, Touch how, uint8_t bytes, const Found &f)
{
    if (c.flags & PENDING)
        report(f, "access to the destination of an asynchronous copy that is not waited for",
               name_of(c.writer, c.write_clock));
    if (is_write(how) && c.reads_pending)
        report(f, "write to memory that an unfinished wgmma or bulk store still reads");
    if (is_read(how) && !f.region->initialised && (c.flags & bytes) != bytes)
        report(f, "read of uninitialised memory");
    check_against_write(t, c, how, bytes, f);
    if (!is_write(how) || is_atomic(how) || bytes != 3) return;
    for (int k = 0; k < 2; k++)
        if (c.read_clock[k] && !clock_ordered(t, c.reader[k], c.read_clock[k]))
            report(f, "data race: write after an unordered read",
                   name_of(c.reader[k], c.read_clock[k]));
}

/* ---- keeping the cells ---- */

static void note_write(Cell &c, int t, uint32_t now, uint8_t bytes, bool atomic)
{
    c.writer = (uint16_t)t;
    c.write_clock = now;
    c.flags =
        (uint8_t)((c.flags & (INIT | PENDING)) | bytes | bytes << 2 | (atomic ? BY_ATOMIC : 0));
    if (!atomic) c.read_clock[0] = c.read_clock[1] = 0;
}

static void note_read(Cell &c, int t, uint32_t now)
{
    const uint32_t start = clock_cluster_start();
    int k = t & 1;
    for (int i = 1; i >= 0; i--)
        if (!c.read_clock[i]) k = i;
    for (int i = 0; i < 2; i++)
        if (c.reader[i] == t && c.read_clock[i] >= start) k = i;
    c.reader[k] = (uint16_t)t;
    c.read_clock[k] = now;
}

void check_touch(int thread, const void *p, size_t bytes, Touch how, At at)
{
    if (!settings.check) return;
    if (is_atomic(how))
        clock_atomic(thread, p, how != Touch::ATOMIC_WRITE, how != Touch::ATOMIC_READ);
    Region *r = cells_of(p);
    if (!r) return;
    const int t = thread == ENGINE ? (int)machine.threads.size() : thread;
    const uint32_t now = clock_of(thread);
    const uint8_t half = (reinterpret_cast<uintptr_t>(p) & 1) ? 2 : 1;
    const size_t end = end_cell(*r, p, bytes);
    for (size_t i = first_cell(*r, p); i < end; i++) {
        Cell &c = r->cells[i];
        const uint8_t mask = bytes == 1 ? half : 3;
        if (thread != ENGINE) check_cell(t, c, how, mask, {r, i, at});
        if (is_write(how)) note_write(c, t, now, mask, is_atomic(how));
        else note_read(c, t, now);
    }
}

void check_object(int thread, const void *p, size_t bytes, const char *what, At at)
{
    if (!settings.check) return;
    const Region *r = cells_of(p);
    for (size_t i = first_cell(*r, p); i < end_cell(*r, p, bytes); i++) {
        const Cell &c = r->cells[i];
        if (c.write_clock && !clock_ordered(thread, c.writer, c.write_clock))
            trap(at, "%s: its initialisation is not ordered before this use", what);
    }
}

void check_pending_write(const void *p, size_t bytes, bool on)
{
    Region *r = settings.check ? cells_of(p) : nullptr;
    if (!r) return;
    for (size_t i = first_cell(*r, p); i < end_cell(*r, p, bytes); i++) {
        uint8_t &flags = r->cells[i].flags;
        flags = (uint8_t)(on ? flags | PENDING : flags & ~PENDING);
    }
}

void check_pending_read(const void *p, size_t bytes, int add)
{
    Region *r = settings.check ? cells_of(p) : nullptr;
    if (!r) return;
    for (size_t i = first_cell(*r, p); i < end_cell(*r, p, bytes); i++)
        r->cells[i].reads_pending = (uint8_t)(r->cells[i].reads_pending + add);
}

void check_fence_proxy(int thread)
{
    if (!settings.check) return;
    proxy_fence[thread] = clock_of(thread);
    clock_advance(thread); /* later writes get a later time */
}

void check_launch_begin()
{
    if (settings.check) return;
    for_each_region([](Region &r) { /* what this launch writes is not recorded */
                                    free(r.cells);
                                    r.cells = nullptr;
                                    r.initialised = true;
    });
}

void check_cluster_begin()
{
    if (settings.check) proxy_fence.assign(machine.threads.size(), 0);
}

void host_wrote(const void *p, size_t bytes)
{
    Region *r = find_region(p);
    if (!r || r->initialised) return;
    if (!r->cells && static_cast<const char *>(p) == r->p && bytes >= r->bytes) {
        r->initialised = true;
        return;
    }
    r = cells_of(p);
    for (size_t i = first_cell(*r, p); i < end_cell(*r, p, bytes); i++) {
        r->cells[i] = Cell();
        r->cells[i].flags = INIT;
    }
}

/* ---- fences ---- */

void fence(Scope scope, At) { clock_fence(machine.current->index, scope >= Scope::GPU); }

void fence_proxy_async(At) { check_fence_proxy(machine.current->index); }

} // namespace hostcuda
