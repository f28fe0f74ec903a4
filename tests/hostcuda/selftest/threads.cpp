/* threads.cpp - cases of barriers, warp operations and the rules of memory. */
#include "selftest.h"

namespace selftest
{

/* ---- what has to work ---- */

static void set(int i, float value) { store(data + i, value, HERE, Space::GLOBAL); }

static uint32_t shfl(Shuffle kind, uint32_t value, int b, int width = 32)
{
    const uint32_t clamp = kind == Shuffle::UP ? 0 : 31;
    return shuffle(kind, ALL, value, (uint32_t)b, (uint32_t)(32 - width) << 8 | clamp, nullptr,
                   HERE);
}

static void warp_ops()
{
    const uint32_t l = special.laneid;
    bool ok = shfl(Shuffle::IDX, l, 7) == 7;
    ok = ok && shfl(Shuffle::UP, l, 3) == (l < 3 ? l : l - 3);
    ok = ok && shfl(Shuffle::DOWN, l, 3) == (l > 28 ? l : l + 3);
    ok = ok && shfl(Shuffle::BFLY, l, 16) == (l ^ 16);
    ok = ok && shfl(Shuffle::IDX, l, 1, 8) == (l & 24) + 1;
    ok = ok && shfl(Shuffle::DOWN, l, 4, 8) == ((l & 7) < 4 ? l + 4 : l);
    ok = ok && vote(ALL, l & 1, HERE) == 0xaaaaaaaau;
    ok = ok && redux(Redux::ADD, ALL, l, HERE) == 496;
    ok = ok && redux(Redux::MIN_S, ALL, l - 5, HERE) == (uint32_t)-5;
    ok = ok && match_any(ALL, l / 8, HERE) == 0xffu << (l & 24);
    bool all = true;
    ok = ok && match_all(ALL, l, &all, HERE) == 0 && !all;
    uint32_t leader = 9;
    ok = ok && elect(ALL, &leader, HERE) == (l == 0) && leader == 0;
    /* Two disjoint masks at once. */
    const uint32_t half = l < 16 ? 0xffffu : 0xffff0000u, flip = l < 16 ? 1 : 2;
    ok = ok && shuffle(Shuffle::BFLY, half, l, flip, 31, nullptr, HERE) == (l ^ flip);
    const bool few = l < 5;
    ok = ok && bar_reduce(0, 0, Reduce::POPC, few, HERE) == (int)special.ntid.x / 32 * 5;
    ok = ok && bar_reduce(0, 0, Reduce::AND, true, HERE) &&
         !bar_reduce(0, 0, Reduce::OR, false, HERE);
    set(thread_index(), ok ? 1.0f : 0.0f);
}

static bool all_ones()
{
    for (int i = 0; i < 128; i++)
        if (data[i] != 1.0f) return false;
    return true;
}

static void named_barriers()
{
    float *a = static_floats();
    const int t = thread_index();
    if (t >= 32) {
        store(a + t - 32, 5.0f, HERE);
        bar_arrive(1, 64, HERE);
        bar_sync(2, 32, HERE); /* an early release of barrier 2 would be a bug */
    } else {
        bar_sync(1, 64, HERE);
        set(t, load<float>(a + t, HERE));
    }
}

static void arrive_learns_nothing()
{
    float *a = static_floats();
    if (thread_index() >= 32) {
        bar_arrive(1, 64, HERE);
        load<float>(a, HERE);
    } else {
        if (thread_index() == 0) store(a, 1.0f, HERE);
        bar_sync(1, 64, HERE);
    }
}

static void write_after_arrive()
{
    float *a = static_floats();
    if (thread_index() >= 32) {
        bar_arrive(1, 64, HERE);
        if (thread_index() == 32) store(a, 1.0f, HERE);
    } else {
        if (thread_index() == 0) store(a, 1.0f, HERE);
        bar_sync(1, 64, HERE);
    }
}

static void early_exit()
{
    if (thread_index() >= 40) return;
    bar_sync(0, 0, HERE);
    set(thread_index(), 3.0f);
}

/* The last block sums what all blocks have written. */
static void last_block()
{
    const unsigned block = special.ctaid.x, n = special.nctaid.x;
    float *last = static_floats();
    if (thread_index() == 0) {
        set((int)block, 1.0f);
        fence(Scope::GPU, HERE);
        store(last, atomic_add(data + 8, 1, HERE) == n - 1 ? 1.0f : 0.0f, HERE);
    }
    bar_sync(0, 0, HERE);
    if (load<float>(last, HERE) == 0.0f || thread_index() != 0) return;
    fence(Scope::GPU, HERE);
    float sum = 0;
    for (unsigned i = 0; i < n; i++) sum += load<float>(data + i, HERE);
    set(16, sum);
}

static void spin_on_flag()
{
    if (thread_index() == 0)
        while (atomic_add(data + 8, 0, HERE) == 0) nanosleep(HERE);
    if (thread_index() == 33) atomic_add(data + 8, 1, HERE);
}

static void bytes_of_neighbours()
{
    const int t = thread_index();
    char *a = static_memory();
    store(a + t, (char)t, HERE);
    bar_sync(0, 0, HERE);
    set(t, (float)load<char>(a + (t ^ 1), HERE));
}

/* ---- what has to be found ---- */

static void static_out_of_bounds() { store(static_floats() + thread_index() + 1, 1.0f, HERE); }
static void dynamic_out_of_bounds()
{
    store((float *)dynamic_memory() + thread_index() + 1, 1.0f, HERE);
}
static void global_after_end() { set(DATA_WORDS - 31 + thread_index(), 1.0f); }
static void global_before_begin() { load<float>(data - 1, HERE); }
static void host_pointer()
{
    static float host[32];
    load<float>(host + thread_index(), HERE);
}

static void uninitialised_shared()
{
    float *a = static_floats();
    store(a + thread_index(), 1.0f, HERE);
    bar_sync(0, 0, HERE);
    load<float>(a + thread_index() + 32, HERE);
}

static void race_in_warp()
{
    float *a = static_floats();
    store(a + thread_index(), 1.0f, HERE);
    load<float>(a + 31 - thread_index(), HERE);
}

static void race_despite_shuffle()
{
    float *a = static_floats();
    store(a + thread_index(), 1.0f, HERE);
    shuffle(Shuffle::IDX, ALL, 1, 3, 31, nullptr, HERE);
    load<float>(a + 31 - thread_index(), HERE);
}

static void no_race_with_syncwarp()
{
    float *a = static_floats();
    store(a + thread_index(), 1.0f, HERE);
    warp_sync(ALL, HERE);
    load<float>(a + (thread_index() ^ 31), HERE);
}

static void race_between_warps()
{
    float *a = static_floats();
    store(a + thread_index(), 1.0f, HERE);
    warp_sync(ALL, HERE);
    load<float>(a + (thread_index() ^ 32), HERE);
}

static void race_write_after_read()
{
    float *a = static_floats();
    store(a + thread_index(), 1.0f, HERE);
    bar_sync(0, 0, HERE);
    load<float>(a + (thread_index() ^ 32), HERE);
    store(a + thread_index(), 2.0f, HERE);
}

static void race_between_blocks() { store(data, (float)special.ctaid.x, HERE); }

static void exited_lane_in_mask()
{
    if (thread_index() == 5) return;
    shuffle(Shuffle::BFLY, ALL, 1, 1, 31, nullptr, HERE);
}

static void divergent_collective()
{
    if (thread_index() < 16) shuffle(Shuffle::BFLY, ALL, 1, 1, 31, nullptr, HERE);
    else vote(ALL, true, HERE);
}

static void missing_arrival()
{
    if (thread_index() < 32) bar_sync(1, 64, HERE);
}

static void divergent_barrier()
{
    if (thread_index() < 32) bar_sync(0, 0, HERE);
    else bar_sync(0, 0, HERE);
}

static void misaligned()
{
    struct Four {
        float v[4];
    };
    load<Four>(data + 1, HERE);
}

static void endless_poll()
{
    while (load<float>(data, HERE) == 0.0f) nanosleep(HERE);
}

static bool first_is_5() { return data[3] == 5.0f; }
static bool sum_is_4() { return data[16] == 4.0f; }
static bool exits_left() { return data[39] == 3.0f && data[40] == 0.0f; }
static bool bytes_right() { return data[0] == 1.0f && data[63] == 62.0f; }

static const Case cases[] = {
    {"warp_ops", warp_ops, nullptr, 1, 128, 1, 0, 0, all_ones},
    {"named_barriers", named_barriers, nullptr, 1, 64, 1, 128, 0, first_is_5},
    {"early_exit", early_exit, nullptr, 1, 64, 1, 0, 0, exits_left},
    {"last_block", last_block, nullptr, 4, 64, 1, 4, 0, sum_is_4},
    {"spin_on_flag", spin_on_flag, nullptr, 1, 64, 1, 0, 0, nullptr},
    {"bytes_of_neighbours", bytes_of_neighbours, nullptr, 1, 64, 1, 64, 0, bytes_right},
    {"no_race_with_syncwarp", no_race_with_syncwarp, nullptr, 2, 32, 1, 128, 0, nullptr},
    {"arrive_learns_nothing", arrive_learns_nothing, "", 1, 64, 1, 4, 0, nullptr},
    {"write_after_arrive", write_after_arrive, "data race: write", 1, 64, 1, 4, 0, nullptr},
    {"static_out_of_bounds", static_out_of_bounds, "shared memory out of bounds", 1, 32, 1, 128,
     256, nullptr},
    {"dynamic_out_of_bounds", dynamic_out_of_bounds, "shared memory out of bounds", 1, 32, 1, 128,
     128, nullptr},
    {"global_after_end", global_after_end, "at byte 16384 of an allocation of 16384", 1, 32, 1, 0,
     0, nullptr},
    {"global_before_begin", global_before_begin, "at byte -4 of", 1, 32, 1, 0, 0, nullptr},
    {"host_pointer", host_pointer, "global memory out of bounds", 1, 32, 1, 0, 0, nullptr},
    {"uninitialised_shared", uninitialised_shared, "uninitialised", 1, 32, 1, 256, 0, nullptr},
    {"race_in_warp", race_in_warp, "", 1, 32, 1, 128, 0, nullptr},
    {"race_despite_shuffle", race_despite_shuffle, "data race: read", 1, 32, 1, 128, 0, nullptr},
    {"race_between_warps", race_between_warps, "", 1, 64, 1, 256, 0, nullptr},
    {"race_write_after_read", race_write_after_read, "data race", 1, 64, 1, 256, 0, nullptr},
    {"race_between_blocks", race_between_blocks, "data race: write", 2, 1, 1, 0, 0, nullptr},
    {"exited_lane_in_mask", exited_lane_in_mask, "exit", 1, 32, 1, 0, 0, nullptr},
    {"divergent_collective", divergent_collective, "divergent warp", 1, 32, 1, 0, 0, nullptr},
    {"missing_arrival", missing_arrival, "deadlock", 1, 64, 1, 0, 0, nullptr},
    {"divergent_barrier", divergent_barrier, "divergent __syncthreads", 1, 64, 1, 0, 0, nullptr},
    {"misaligned", misaligned, "not 16-byte aligned", 1, 1, 1, 0, 0, nullptr},
    {"endless_poll", endless_poll, "livelock", 1, 1, 1, 0, 0, nullptr},
};

Table thread_cases() { return {cases, (int)(sizeof cases / sizeof *cases)}; }

} // namespace selftest
