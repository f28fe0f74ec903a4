/* clusters.cpp - cases of distributed shared memory, multicast and barriers between CTAs. */
#include "selftest.h"

namespace selftest
{

static void set(int i, float value) { store(data + i, value, HERE, Space::GLOBAL); }

static int rank() { return (int)special.cluster_ctarank; }

static char *at_rank(const void *p, int r)
{
    return shared_pointer(map_to_rank(shared_address(p), (uint32_t)r, HERE));
}

static void cluster_sync()
{
    cluster_arrive(HERE);
    cluster_wait(HERE);
}

/* Every CTA reads its neighbour's array. */
static void exchange(bool before, bool after)
{
    float *mine = static_floats();
    const int t = thread_index(), other = (rank() + 1) % (int)special.cluster_nctarank;
    store(mine + t, (float)(rank() * 100 + t), HERE);
    if (before) cluster_sync();
    const float f = load<float>(at_rank(mine + t, other), HERE, Space::SHARED_CLUSTER);
    set((int)special.ctaid.x * 32 + t, f == (float)(other * 100 + t));
    if (after) cluster_sync();
}

static void exchange_right() { exchange(true, true); }
static void exchange_too_early() { exchange(false, true); }
static void exchange_then_exit() { exchange(true, false); }

/* A thread that has exited counts as arrived. */
static void exit_before_sync()
{
    if (thread_index() < 16) cluster_sync();
    set((int)special.ctaid.x * 32 + thread_index(), 1.0f);
}

static void own_address_only()
{
    cluster_sync();
    load<float>(at_rank(static_floats(), 1 - rank()), HERE, Space::SHARED);
}

/* Rank 0 loads a piece for all; each CTA's barrier counts its own bytes. */
static void multicast()
{
    uint64_t *bar = reinterpret_cast<uint64_t *>(static_memory());
    if (thread_index() == 0) {
        mbarrier_init(bar, 1, HERE);
        fence_proxy_async(HERE);
        mbarrier_arrive(bar, 1, 512, false, HERE);
    }
    cluster_sync();
    if (rank() == 0 && thread_index() == 0)
        bulk_load(dynamic_memory(), input, 512, bar, true, 0xf, HERE);
    mbarrier_wait(bar, 0, HERE);
    bool ok = true;
    for (int i = 0; i < 4; i++) {
        const int word = thread_index() * 4 + i;
        ok = ok && load<float>(dynamic_memory() + word * 4, HERE) == (float)word;
    }
    set((int)special.ctaid.x * 32 + thread_index(), ok);
    cluster_sync();
}

/* The other CTA sends words and tells it by its mbarrier, once by arrivals and once by bytes. */
static void remote_arrival(bool arrive_first)
{
    uint64_t *bars = reinterpret_cast<uint64_t *>(static_memory());
    char *words = dynamic_memory();
    const int t = thread_index(), other = 1 - rank();
    if (t == 0) {
        mbarrier_init(bars, 32, HERE);
        mbarrier_init(bars + 1, 1, HERE);
        fence_proxy_async(HERE);
        mbarrier_arrive(bars + 1, 1, 128, false, HERE);
    }
    cluster_sync();
    uint64_t *remote = reinterpret_cast<uint64_t *>(at_rank(bars, other));
    if (arrive_first) mbarrier_arrive(remote, 1, -1, false, HERE);
    store(at_rank(words + t * 4, other), (float)t, HERE, Space::SHARED_CLUSTER);
    if (!arrive_first) mbarrier_arrive(remote, 1, -1, false, HERE);
    const float value = (float)(2 * t);
    store_async(at_rank(words + 128 + t * 4, other), &value, 4, remote + 1, HERE);
    mbarrier_wait(bars, 0, HERE);
    bool ok = load<float>(words + (31 - t) * 4, HERE) == (float)(31 - t);
    mbarrier_wait(bars + 1, 0, HERE);
    ok = ok && load<float>(words + 128 + t * 4, HERE) == value;
    set(rank() * 32 + t, ok);
    cluster_sync();
}

static void remote_right() { remote_arrival(false); }
static void remote_race() { remote_arrival(true); }

static void wait_without_arrive() { cluster_wait(HERE); }

static bool ones(int n)
{
    for (int i = 0; i < n; i++)
        if (data[i] != 1.0f) return false;
    return true;
}

static bool ones_64() { return ones(64); }
static bool ones_128() { return ones(128); }

static const Case cases[] = {
    {"exchange_right", exchange_right, nullptr, 4, 32, 4, 128, 0, ones_128},
    {"exchange_two_clusters", exchange_right, nullptr, 4, 32, 2, 128, 0, ones_128},
    {"exchange_too_early", exchange_too_early, "may not have started", 2, 32, 2, 128, 0, nullptr},
    {"exit_before_sync", exit_before_sync, nullptr, 2, 32, 2, 0, 0, ones_64},
    {"own_address_only", own_address_only, "belongs to CTA", 2, 32, 2, 128, 0, nullptr},
    {"multicast", multicast, nullptr, 4, 32, 4, 8, 512, ones_128},
    {"remote_right", remote_right, nullptr, 2, 32, 2, 16, 256, ones_64},
    {"remote_race", remote_race, "", 2, 32, 2, 16, 256, nullptr},
    {"wait_without_arrive", wait_without_arrive, "without an arrive", 2, 32, 2, 0, 0, nullptr},
    {"uneven_cluster", exchange_right, "not a multiple of the cluster", 3, 32, 2, 128, 0, nullptr},
};
/* Whether a CTA leaves too early depends on the schedule, so this one runs lowest-first only. */
static const Case early = {
    "exchange_then_exit", exchange_then_exit, "which has exited", 2, 32, 2, 128, 0, nullptr};

Table cluster_cases() { return {cases, (int)(sizeof cases / sizeof *cases)}; }
bool run_early_exit() { return run(early, 0, 0, 1); }

} // namespace selftest
