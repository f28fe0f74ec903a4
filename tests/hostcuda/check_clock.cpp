/* check_clock.cpp - vector clocks: which past every thread of the running cluster has seen.
 *
 * Every thread counts its own clock up at each release. Clocks go on growing from cluster to
 * cluster of a launch and from launch to launch, so a time alone tells in which one it was. A
 * thread's row holds the clock of every other thread that it has seen. After a barrier of all
 * threads all rows are equal: they are kept once, as `common`, and a row is written out only when
 * it differs again. The last index is the asynchronous copy engine.
 */
#include "check.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <unordered_set>

namespace hostcuda
{

namespace
{
using Row = std::vector<uint32_t>;

struct Clocks {
    int n = 0; /* threads; index n is the engine */
    uint32_t start = 1, launch_start = 1, largest = 0;
    Row clock, common, merged;
    std::vector<uint8_t> own_row;     /* the row differs from common */
    std::unique_ptr<uint32_t[]> rows; /* [n + 1][n + 1] */
    size_t rows_size = 0;
    std::unordered_map<const void *, Row> objects;
    std::vector<uint8_t> fenced; /* widest fence so far: 1 its CTA or cluster, 2 the GPU */
    /* Order between clusters, by fences and atomics on global memory: clusters by their start. */
    std::unordered_map<const void *, std::unordered_set<uint32_t>> published;
    std::unordered_set<uint32_t> seen;
    std::vector<uint32_t> starts;
} c;
} // namespace

static int slot(int thread) { return thread < 0 ? c.n : thread; }
static uint32_t *row(int t) { return &c.rows[(size_t)t * (size_t)(c.n + 1)]; }

static uint32_t known(int t, int other)
{
    if (t == other) return c.clock[t];
    return c.own_row[t] ? row(t)[other] : c.common[other];
}

static void advance(int t) { c.largest = std::max(c.largest, ++c.clock[t]); }

/* The thread's row, written out; its own entry is its clock. */
static uint32_t *own(int t)
{
    uint32_t *r = row(t);
    if (!c.own_row[t]) {
        memcpy(r, c.common.data(), c.common.size() * sizeof *r);
        c.own_row[t] = 1;
    }
    r[t] = c.clock[t];
    return r;
}

static void maximum(uint32_t *into, const uint32_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++) into[i] = std::max(into[i], from[i]);
}

void clock_launch_begin()
{
    if (!settings.check) return;
    if (c.largest > 1u << 31) { /* start over: nothing of the past matters to a new launch */
        for_each_region([](Region &r) {
            for (size_t i = 0; r.cells && i < (r.bytes + 1) / 2; i++)
                r.cells[i].write_clock = r.cells[i].read_clock[0] = r.cells[i].read_clock[1] = 0;
        });
        c.largest = 0;
    }
    c.launch_start = c.largest + 1;
    c.published.clear();
    c.starts.clear();
}

void clock_cluster_begin(int n_threads)
{
    if (!settings.check) return;
    c.n = n_threads;
    c.start = ++c.largest;
    const size_t n = (size_t)n_threads + 1;
    c.clock.assign(n, c.start);
    c.common.assign(n, 0);
    c.own_row.assign(n, 0);
    c.fenced.assign(n, 0);
    if (c.rows_size < n * n) {
        c.rows.reset(new uint32_t[n * n]);
        c.rows_size = n * n;
    }
    c.objects.clear();
    c.seen.clear();
    c.starts.push_back(c.start);
}

uint32_t clock_of(int thread) { return c.clock[slot(thread)]; }
uint32_t clock_cluster_start() { return c.start; }

/* Everyone who is still there meets: rows become equal. */
static void join_all(const int *threads, int n)
{
    for (int i = 0; i < n; i++)
        if (c.own_row[threads[i]]) maximum(c.common.data(), row(threads[i]), c.common.size());
    for (int i = 0; i < n; i++) c.common[threads[i]] = c.clock[threads[i]];
    for (int i = 0; i < n; i++) {
        c.own_row[threads[i]] = 0;
        advance(threads[i]);
    }
}

void clock_join(const int *threads, int n)
{
    if (!settings.check || n == 0) return;
    if (n == machine.n_live) return join_all(threads, n);
    c.merged = c.common;
    for (int i = 0; i < n; i++)
        if (c.own_row[threads[i]]) maximum(c.merged.data(), row(threads[i]), c.merged.size());
    for (int i = 0; i < n; i++) c.merged[threads[i]] = c.clock[threads[i]];
    for (int i = 0; i < n; i++) {
        memcpy(row(threads[i]), c.merged.data(), c.merged.size() * sizeof(uint32_t));
        c.own_row[threads[i]] = 1;
        advance(threads[i]);
    }
}

void clock_release(const void *object, int thread)
{
    if (!settings.check) return;
    const int t = slot(thread);
    Row &o = c.objects[object];
    o.resize((size_t)c.n + 1, 0);
    if (c.own_row[t]) maximum(o.data(), row(t), o.size());
    else maximum(o.data(), c.common.data(), o.size());
    o[t] = c.clock[t];
    advance(t);
}

void clock_acquire(const void *object, int thread)
{
    if (!settings.check) return;
    const auto o = c.objects.find(object);
    if (o != c.objects.end()) maximum(own(slot(thread)), o->second.data(), o->second.size());
}

void clock_forget(const void *object) { c.objects.erase(object); }

bool clock_knows_any(int thread, int first, int n)
{
    for (int i = first; i < first + n; i++)
        if (known(thread, i) >= c.start) return true;
    return false;
}

/* ---- order between clusters of one launch ---- */

void clock_advance(int thread) { advance(thread); }

void clock_fence(int thread, bool gpu)
{
    if (settings.check) c.fenced[thread] = std::max<uint8_t>(c.fenced[thread], gpu ? 2 : 1);
}

/* Message passing: fence, atomic write; then atomic read, fence. The second fence is not asked for.
 */
void clock_atomic(int thread, const void *p, bool reads, bool writes)
{
    if (reads) clock_acquire(p, thread);
    if (writes && c.fenced[thread]) clock_release(p, thread);
    if (is_shared(p)) return;
    auto &published = c.published[p];
    if (reads) c.seen.insert(published.begin(), published.end());
    if (writes && c.fenced[thread] == 2) {
        published.insert(c.seen.begin(), c.seen.end());
        published.insert(c.start);
    }
}

static bool cluster_seen(uint32_t time)
{
    const auto after = std::upper_bound(c.starts.begin(), c.starts.end(), time);
    return after != c.starts.begin() && c.seen.count(*std::prev(after)) > 0;
}

bool clock_ordered(int thread, int other, uint32_t time)
{
    if (time < c.launch_start) return true;
    if (time < c.start) return cluster_seen(time);
    return other == thread || known(thread, other) >= time;
}

} // namespace hostcuda
