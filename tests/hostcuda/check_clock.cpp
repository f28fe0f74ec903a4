/* check_clock.cpp - vector clocks: which past every thread of the running cluster has seen.
 *
 * Every thread counts its own clock up at each release. Clocks go on growing from cluster to
 * cluster of a launch and from launch to launch, so a time alone tells in which one it was. A row
 * holds the clock of every other thread that a thread has seen. Threads that have just met have
 * seen the same, so they share one row until one of them learns more; row 0 is that of the threads
 * that have met nobody since the last barrier of all. The last index is the asynchronous copy
 * engine.
 */
#include "check.h"

#include <algorithm>
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
    Row clock;
    std::vector<int> row_of; /* row of each thread */
    std::vector<Row> rows;
    std::vector<int> users; /* of each row; row 0 is never given back */
    std::vector<int> free_rows, met;
    std::unordered_map<const void *, Row> objects;
    std::vector<uint8_t> fenced; /* widest fence so far: 1 its CTA or cluster, 2 the GPU */
    /* Order between clusters, by fences and atomics on global memory: clusters by their start. */
    std::unordered_map<const void *, std::unordered_set<uint32_t>> published;
    std::unordered_set<uint32_t> seen;
    std::vector<uint32_t> starts;
} c;
} // namespace

static int slot(int thread) { return thread < 0 ? c.n : thread; }
static Row &row(int t) { return c.rows[(size_t)c.row_of[t]]; }
static uint32_t known(int t, int other) { return t == other ? c.clock[t] : row(t)[other]; }
static void advance(int t) { c.largest = std::max(c.largest, ++c.clock[t]); }

static int take_row()
{
    if (c.free_rows.empty()) {
        c.rows.emplace_back();
        c.users.push_back(0);
        return (int)c.rows.size() - 1;
    }
    const int r = c.free_rows.back();
    c.free_rows.pop_back();
    return r;
}

static void use_row(int t, int r)
{
    const int old = c.row_of[t];
    if (old == r) return;
    c.users[r]++;
    if (--c.users[old] == 0 && old != 0) c.free_rows.push_back(old);
    c.row_of[t] = r;
}

static void maximum(Row &into, const Row &from)
{
    for (size_t i = 0; i < into.size(); i++) into[i] = std::max(into[i], from[i]);
}

/* The thread's row, to be changed for it alone. */
static Row &own(int t)
{
    const int old = c.row_of[t];
    if (old == 0 || c.users[old] > 1) {
        const int r = take_row();
        c.rows[r] = c.rows[old];
        use_row(t, r);
    }
    row(t)[t] = c.clock[t];
    return row(t);
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
    c.fenced.assign(n, 0);
    if (c.rows.empty()) take_row();
    c.free_rows.clear();
    for (size_t r = 1; r < c.rows.size(); r++) c.free_rows.push_back((int)r);
    std::fill(c.users.begin(), c.users.end(), 0);
    c.rows[0].assign(n, 0);
    c.users[0] = (int)n;
    c.row_of.assign(n, 0);
    c.objects.clear();
    c.seen.clear();
    c.starts.push_back(c.start);
}

uint32_t clock_of(int thread) { return c.clock[slot(thread)]; }
uint32_t clock_cluster_start() { return c.start; }

/* The different rows of these threads. */
static const std::vector<int> &rows_of(const int *threads, int n)
{
    c.met.clear();
    for (int i = 0; i < n; i++) {
        const int r = c.row_of[threads[i]];
        if (!c.met.empty() && c.met.back() == r) continue;
        if (std::find(c.met.begin(), c.met.end(), r) == c.met.end()) c.met.push_back(r);
    }
    return c.met;
}

/* The row that those who meet will share: row 0 for everyone who is still there, the row they have
 * already if nobody else uses it, or a new one. */
static int meeting_row(const std::vector<int> &met, int n)
{
    if (n == machine.n_live) return 0;
    if (met.size() == 1 && met[0] != 0 && c.users[met[0]] == n) return met[0];
    const int r = take_row();
    c.rows[r] = c.rows[met[0]];
    return r;
}

void clock_join(const int *threads, int n)
{
    if (!settings.check || n == 0) return;
    const std::vector<int> &met = rows_of(threads, n);
    const int r = meeting_row(met, n);
    for (int other : met)
        if (other != r) maximum(c.rows[r], c.rows[other]);
    for (int i = 0; i < n; i++) {
        c.rows[r][threads[i]] = c.clock[threads[i]];
        use_row(threads[i], r);
        advance(threads[i]);
    }
}

void clock_release(const void *object, int thread)
{
    if (!settings.check) return;
    const int t = slot(thread);
    Row &o = c.objects[object];
    o.resize((size_t)c.n + 1, 0);
    maximum(o, row(t));
    o[t] = c.clock[t];
    advance(t);
}

void clock_acquire(const void *object, int thread)
{
    if (!settings.check) return;
    const auto o = c.objects.find(object);
    if (o != c.objects.end()) maximum(own(slot(thread)), o->second);
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
    const auto published = c.published.find(p);
    if (reads && published != c.published.end())
        c.seen.insert(published->second.begin(), published->second.end());
    if (writes && c.fenced[thread] == 2) {
        auto &clusters = c.published[p];
        clusters.insert(c.seen.begin(), c.seen.end());
        clusters.insert(c.start);
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
