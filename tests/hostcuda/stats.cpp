/* stats.cpp - bank conflicts of shared memory and sectors of global memory, per instruction.
 *
 * The lanes of a warp run one after another, so one request of the warp is put together from the
 * k-th execution of the instruction by each lane. A shared request takes as many wavefronts as the
 * fullest of the 32 banks has different words; 8-byte accesses go half a warp at a time, 16-byte
 * ones a quarter. A global request takes one sector per 32 different bytes.
 */
#include "check.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <unordered_map>

namespace hostcuda
{

namespace
{
struct Total {
    uint64_t requests = 0, actual = 0, ideal = 0;
    int bytes = 0;
};

struct Request {
    uint32_t mask = 0;
    uintptr_t address[LANES];
    int bytes;
    HostcudaKind kind;
    At at;
};

using Key = std::pair<At, HostcudaKind>;
std::map<Key, Total> totals;
std::unordered_map<uint64_t, uint32_t> visits; /* of (instruction, thread) */
std::unordered_map<uint64_t, Request> open_requests;
} // namespace

static uint64_t mix(At at, uint64_t who)
{
    return ((uint64_t) reinterpret_cast<uintptr_t>(at) * 0x9E3779B97F4A7C15ull) ^ who;
}

/* Wavefronts of `lanes` of one shared request. */
static int wavefronts(const Request &r, int first, int n)
{
    uintptr_t words[LANES * 4];
    int n_words = 0, bank[32] = {}, most = 0;
    for (int i = first; i < first + n; i++)
        for (int b = 0; (r.mask >> i & 1) && b < std::max(4, r.bytes); b += 4)
            words[n_words++] = (r.address[i] + (uintptr_t)b) / 4;
    std::sort(words, words + n_words);
    n_words = (int)(std::unique(words, words + n_words) - words);
    for (int i = 0; i < n_words; i++) most = std::max(most, ++bank[words[i] % 32]);
    return most;
}

static int shared_actual(const Request &r)
{
    const int group = r.bytes >= 16 ? 8 : r.bytes == 8 ? 16 : 32;
    int sum = 0;
    for (int first = 0; first < LANES; first += group) sum += wavefronts(r, first, group);
    return sum;
}

static int sectors(const Request &r)
{
    uintptr_t list[2 * LANES];
    int n = 0;
    for (int i = 0; i < LANES; i++) {
        if (!(r.mask >> i & 1)) continue;
        list[n++] = r.address[i] / 32;
        list[n++] = (r.address[i] + (uintptr_t)r.bytes - 1) / 32;
    }
    std::sort(list, list + n);
    return (int)(std::unique(list, list + n) - list);
}

static bool is_shared_kind(HostcudaKind kind) { return kind < HOSTCUDA_GLOBAL_LOAD; }

static void close_request(const Request &r)
{
    Total &t = totals[{r.at, r.kind}];
    const int lanes = __builtin_popcount(r.mask);
    t.requests++;
    t.bytes = r.bytes;
    if (is_shared_kind(r.kind)) {
        t.actual += (uint64_t)shared_actual(r);
        t.ideal += (uint64_t)(lanes * std::max(4, r.bytes) + 127) / 128;
    } else {
        t.actual += (uint64_t)sectors(r);
        t.ideal += (uint64_t)(lanes * r.bytes + 31) / 32;
    }
}

void stats_access(const Thread &thread, const void *p, size_t bytes, bool store, bool shared, At at)
{
    const uint32_t visit = visits[mix(at, (uint64_t)thread.index)]++;
    const uint64_t warp = (uint64_t)thread.warp->first;
    Request &r = open_requests[mix(at, warp << 40 ^ (uint64_t)visit << 4)];
    r.at = at;
    r.bytes = (int)bytes;
    r.kind = shared ? (store ? HOSTCUDA_SHARED_STORE : HOSTCUDA_SHARED_LOAD)
                    : (store ? HOSTCUDA_GLOBAL_STORE : HOSTCUDA_GLOBAL_LOAD);
    r.address[thread.lane] = shared ? shared_address(p) : reinterpret_cast<uintptr_t>(p);
    r.mask |= 1u << thread.lane;
    if (r.mask == FULL_MASK) {
        close_request(r);
        open_requests.erase(mix(at, warp << 40 ^ (uint64_t)visit << 4));
    }
}

void stats_matrix(const char *const *rows, bool store, At at)
{
    Request r;
    r.bytes = 16;
    r.mask = 0xff;
    for (int i = 0; i < 8; i++) r.address[i] = shared_address(rows[i]);
    Total &t = totals[{at, store ? HOSTCUDA_STMATRIX : HOSTCUDA_LDMATRIX}];
    t.requests++;
    t.bytes = 16;
    t.actual += (uint64_t)wavefronts(r, 0, 8);
    t.ideal++;
}

void stats_cluster_end()
{
    for (const auto &r : open_requests) close_request(r.second);
    open_requests.clear();
    visits.clear();
}

void stats_clear() { totals.clear(); }

static HostcudaStats as_stats(const Total &t)
{
    return {t.requests, t.actual, t.ideal, t.ideal ? (double)t.actual / (double)t.ideal : 0.0};
}

static void add(Total &sum, const Total &t)
{
    sum.requests += t.requests;
    sum.actual += t.actual;
    sum.ideal += t.ideal;
    sum.bytes = std::max(sum.bytes, t.bytes);
}

static bool is_line(At at, const char *file, int line)
{
    for (; at; at = at->caller)
        if (at->line == line && strcmp(at->file, file) == 0) return true;
    return false;
}

} // namespace hostcuda

using namespace hostcuda;

extern "C" {

HostcudaStats hostcuda_ratio(HostcudaKind kind)
{
    Total sum;
    for (const auto &t : totals)
        if (t.first.second == kind) add(sum, t.second);
    return as_stats(sum);
}

HostcudaStats hostcuda_stats(const char *file, int line)
{
    Total sum[2];
    for (const auto &t : totals)
        if (is_line(t.first.first, file, line)) add(sum[is_shared_kind(t.first.second)], t.second);
    return as_stats(sum[1].requests ? sum[1] : sum[0]);
}

void hostcuda_print_stats(void)
{
    static const char *const names[HOSTCUDA_KINDS] = {
        "shared load", "shared store", "ldmatrix", "stmatrix", "global load", "global store"};
    std::map<std::pair<std::string, int>, Total> lines;
    for (const auto &t : totals) add(lines[{place(t.first.first), t.first.second}], t.second);
    printf("%-12s %5s %10s %10s %6s  %s\n", "request", "bytes", "requests", "actual", "ratio",
           "line");
    for (const auto &l : lines) {
        const HostcudaStats s = as_stats(l.second);
        printf("%-12s %5d %10llu %10llu %6.2f%c %s\n", names[l.first.second], l.second.bytes,
               (unsigned long long)s.requests, (unsigned long long)s.actual, s.ratio,
               s.ratio > 1.5 ? '!' : ' ', l.first.first.c_str());
    }
}
}
