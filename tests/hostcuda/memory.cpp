/* memory.cpp - shared arenas and their layout, device memory, and the rules every access obeys.
 *
 * Shared memory of the CTA with rank r lies at shared_origin + (r << 24) + SHARED_WINDOW, so 32-bit
 * shared addresses, descriptors and swizzles behave as on the chip. Static variables come first,
 * then the dynamic array, with red zones in between. Device memory is host memory with guard zones.
 */
#include "check.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>

namespace hostcuda
{

static constexpr size_t RED_ZONE = 128, GUARD = 256, RANK_BYTES = 1u << 24;
static constexpr size_t ARENAS_BYTES = MAX_CLUSTER * RANK_BYTES;

char *shared_origin;

namespace
{
struct Range {
    uint32_t begin, end; /* offsets from shared address 0 of the CTA */
};
std::vector<Range> variables; /* of the running kernel */
std::vector<Region> arenas(MAX_CLUSTER);
Region *last_region;
} // namespace

static std::map<uintptr_t, Region> &regions()
{
    static std::map<uintptr_t, Region> all; /* module variables register before main */
    return all;
}

/* ---- shared memory ---- */

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

static void make_arenas()
{
    void *p = mmap(nullptr, ARENAS_BYTES + RANK_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) abort();
    shared_origin = reinterpret_cast<char *>(round_up(reinterpret_cast<uintptr_t>(p), 1 << 20));
}

static void add_variable(size_t at, size_t bytes)
{
    if (bytes) variables.push_back({(uint32_t)at, (uint32_t)(at + bytes)});
}

bool layout_shared(Kernel &kernel, size_t dynamic_bytes)
{
    if (!shared_origin) make_arenas();
    variables.clear();
    size_t at = SHARED_WINDOW, bytes = 0;
    for (SharedVariable &v : kernel.shared) {
        at = round_up(at, std::max<size_t>(v.align, 1));
        v.address = (uint32_t)at;
        add_variable(at, v.bytes);
        at += v.bytes + RED_ZONE;
        bytes += v.bytes;
    }
    at = round_up(at, std::max<size_t>(kernel.dynamic_align, 16));
    kernel.dynamic_address = (uint32_t)at;
    add_variable(at, dynamic_bytes);
    machine.shared_used = at + dynamic_bytes - SHARED_WINDOW;
    return bytes <= MAX_STATIC_SHARED && bytes + dynamic_bytes <= MAX_SHARED;
}

void shared_begin()
{
    for (const Cta &cta : machine.ctas) {
        memset(cta.shared, 0xff, machine.shared_used);
        Region &r = arenas[cta.rank];
        const size_t bytes = round_up(machine.shared_used, 16);
        if (r.bytes < bytes) {
            free(r.cells);
            r.cells = nullptr;
        }
        r.p = cta.shared;
        r.bytes = std::max(r.bytes, bytes);
        if (r.cells) memset(static_cast<void *>(r.cells), 0, bytes / 2 * sizeof(Cell));
    }
}

static inline size_t arena_offset(const void *p)
{
    return (size_t)(static_cast<const char *>(p) - shared_origin);
}

bool is_shared(const void *p) { return arena_offset(p) < ARENAS_BYTES; }

bool is_shared_own(const void *p)
{
    return arena_offset(p) / RANK_BYTES == (size_t)machine.current->cta->rank;
}

bool is_global(const void *p) { return find_region(p) != nullptr; }

bool in_shared(const void *p, size_t bytes)
{
    const size_t offset = arena_offset(p);
    if (offset >= RANK_BYTES * machine.ctas.size()) return false;
    const size_t a = offset % RANK_BYTES;
    for (const Range &v : variables)
        if (a >= v.begin && a + bytes <= v.end) return true;
    return false;
}

uint32_t rank_of(uint32_t address) { return address >> 24; }

uint32_t map_to_rank(uint32_t address, uint32_t rank, At at)
{
    if (rank >= machine.ctas.size())
        trap(at, "mapa: rank %u in a cluster of %zu", rank, machine.ctas.size());
    return (address & (RANK_BYTES - 1)) | rank << 24;
}

/* The other CTA must have started (a barrier.cluster or an mbarrier says so) and not have ended. */
static void need_resident(const void *p, const char *op, At at)
{
    Thread &t = *machine.current;
    const uint32_t rank = (uint32_t)(arena_offset(p) / RANK_BYTES);
    if (rank >= machine.ctas.size()) return;
    const Cta &other = machine.ctas[rank];
    if (other.n_live == 0)
        trap(at, "%s: shared memory of CTA %u of the cluster, which has exited", op, rank);
    if (!settings.check || (t.known_ranks >> rank & 1)) return;
    if (!clock_knows_any(t.index, other.first, machine.cta_threads))
        trap(at,
             "%s: shared memory of CTA %u of the cluster, which may not have started "
             "(barrier.cluster first)",
             op, rank);
    t.known_ranks |= 1u << rank;
}

void need_shared(const void *p, size_t bytes, size_t align, const char *op, At at)
{
    if (!in_shared(p, bytes))
        trap(at,
             "%s: shared memory out of bounds (%zu bytes at address 0x%zx; dynamic array: %u "
             "bytes at 0x%x)",
             op, bytes, arena_offset(p), special.dynamic_smem_size,
             machine.kernel->dynamic_address);
    if (reinterpret_cast<uintptr_t>(p) % align)
        trap(at, "%s: shared address 0x%zx is not %zu-byte aligned", op, arena_offset(p), align);
    if (machine.ctas.size() > 1) need_resident(p, op, at);
}

void need_own_shared(const void *p, size_t bytes, size_t align, const char *op, At at)
{
    need_shared(p, bytes, align, op, at);
    if (!is_shared_own(p))
        trap(at, "%s: the address belongs to CTA %zu of the cluster", op,
             arena_offset(p) / RANK_BYTES);
}

/* ---- device memory ---- */

Region *find_region(const void *p)
{
    const char *c = static_cast<const char *>(p);
    if (last_region && c >= last_region->p && c < last_region->p + last_region->bytes)
        return last_region;
    auto it = regions().upper_bound(reinterpret_cast<uintptr_t>(p));
    if (it == regions().begin()) return nullptr;
    Region &r = (--it)->second;
    return c < r.p + r.bytes ? last_region = &r : nullptr;
}

const Region *nearest_region(const void *p)
{
    if (regions().empty()) return nullptr;
    const uintptr_t a = reinterpret_cast<uintptr_t>(p);
    auto after = regions().lower_bound(a);
    if (after == regions().begin()) return &after->second;
    auto before = std::prev(after);
    if (after == regions().end()) return &before->second;
    return a - (before->first + before->second.bytes) < after->first - a ? &before->second
                                                                         : &after->second;
}

Region *shared_region(int cta) { return &arenas[cta]; }

void for_each_region(void (*f)(Region &))
{
    for (auto &r : regions()) f(r.second);
}

void need_global(const void *p, size_t bytes, size_t align, const char *op, At at)
{
    if (reinterpret_cast<uintptr_t>(p) % align)
        trap(at, "%s: global address %p is not %zu-byte aligned", op, p, align);
    if (!bytes) return;
    const Region *r = find_region(p);
    if (r && static_cast<const char *>(p) + bytes <= r->p + r->bytes) return;
    r = nearest_region(p);
    if (!r) trap(at, "%s: global memory out of bounds: nothing is allocated", op);
    trap(at, "%s: global memory out of bounds: %zu bytes at byte %td of an allocation of %zu", op,
         bytes, static_cast<const char *>(p) - r->p, r->bytes);
}

static void add_region(void *p, size_t bytes, bool owned)
{
    last_region = nullptr;
    regions()[reinterpret_cast<uintptr_t>(p)] = {static_cast<char *>(p), bytes, nullptr, !owned,
                                                 owned};
}

static bool drop_region(void *p, bool owned)
{
    auto it = regions().find(reinterpret_cast<uintptr_t>(p));
    if (it == regions().end() || it->second.owned != owned) return false;
    free(it->second.cells);
    last_region = nullptr;
    regions().erase(it);
    return true;
}

void *device_alloc(size_t bytes)
{
    void *p = nullptr;
    if (bytes > SIZE_MAX - 2 * GUARD || posix_memalign(&p, GUARD, bytes + 2 * GUARD) != 0)
        return nullptr;
    char *c = static_cast<char *>(p) + GUARD;
    memset(c, 0xff, bytes);
    add_region(c, bytes, true);
    return c;
}

bool device_free(void *p)
{
    if (!drop_region(p, true)) return false;
    free(static_cast<char *>(p) - GUARD);
    return true;
}

bool device_contains(const void *p, size_t bytes)
{
    const Region *r = find_region(p);
    return r && static_cast<const char *>(p) + bytes <= r->p + r->bytes;
}

size_t device_live_count()
{
    size_t n = 0;
    for (const auto &r : regions()) n += r.second.owned;
    return n;
}

void region_add(void *p, size_t bytes) { add_region(p, bytes, false); }
void region_remove(void *p) { drop_region(p, false); }

/* ---- accesses of threads ---- */

static const char *access_name(Access how, bool shared)
{
    static const char *const names[2][5] = {
        {"global load", "global store", "global atomic", "global load", "global store"},
        {"shared load", "shared store", "shared atomic", "shared load", "shared store"}};
    return names[shared][(int)how];
}

void access(const void *p, size_t bytes, Access how, Space space, At at)
{
    const bool shared = is_shared(p);
    const char *name = access_name(how, shared || space >= Space::SHARED);
    if (shared || space >= Space::SHARED) {
        if (space == Space::GLOBAL) trap(at, "%s: the address lies in shared memory", name);
        if (space == Space::SHARED) need_own_shared(p, bytes, bytes, name, at);
        else need_shared(p, bytes, bytes, name, at);
    } else if (settings.check) {
        need_global(p, bytes, bytes, name, at);
    }
    check_touch(machine.current->index, p, bytes, static_cast<Touch>(how), at);
    if (settings.stats)
        stats_access(*machine.current, p, bytes,
                     how == Access::WRITE || how == Access::ATOMIC_WRITE, shared, at);
}

} // namespace hostcuda
