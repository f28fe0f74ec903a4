/* mbarrier.cpp - mbarrier objects: arrivals and transferred bytes complete a phase.
 *
 * The 64 bits of an object: 0-19 pending arrivals, 20-39 expected arrivals, 40-60 bytes still to
 * come (signed), 61 parity of the phase, 62-63 = 2 while initialised.
 */
#include "check.h"

namespace hostcuda
{

namespace
{
struct Object {
    int pending, expected, bytes;
    uint32_t parity;
};
} // namespace

static constexpr int MAX_COUNT = (1 << 20) - 1; /* arrivals, and bytes at once */

static bool exists(const uint64_t *bar) { return *bar >> 62 == 2; }

static Object unpack(uint64_t v)
{
    return {(int)(v & 0xfffff), (int)(v >> 20 & 0xfffff), (int)((int64_t)(v << 3) >> 43),
            mbarrier_parity(v)};
}

static uint64_t pack(const Object &o)
{
    return (uint64_t)o.pending | (uint64_t)o.expected << 20 | (uint64_t)(o.bytes & 0x1fffff) << 40 |
           (uint64_t)o.parity << 61 | 2ull << 62;
}

static Object get(uint64_t *bar, const char *op, At at)
{
    mbarrier_must_exist(bar, op, at);
    return unpack(*bar);
}

static void expect(Object &o, int bytes, At at)
{
    if (bytes < 0 || o.bytes + bytes > MAX_COUNT)
        trap(at, "mbarrier.expect_tx: %d bytes, over the %d that a phase can count",
             o.bytes + bytes, MAX_COUNT);
    o.bytes += bytes;
}

/* Stores the object; completes the phase when nothing is missing. */
static void put(uint64_t *bar, Object o)
{
    if (o.pending == 0 && o.bytes == 0) {
        o.parity ^= 1;
        o.pending = o.expected;
        for (Thread &t : machine.threads)
            if (t.state == State::MBARRIER && t.bar == bar && t.parity != o.parity) make_ready(t);
    }
    *bar = pack(o);
}

void mbarrier_must_exist(uint64_t *bar, const char *op, At at)
{
    need_shared(bar, 8, 8, op, at);
    if (!exists(bar)) trap(at, "%s: the mbarrier is not initialised", op);
    check_object(machine.current->index, bar, 8, op, at);
}

void mbarrier_init(uint64_t *bar, int count, At at)
{
    need_own_shared(bar, 8, 8, "mbarrier.init", at);
    if (count < 1 || count > MAX_COUNT) trap(at, "mbarrier.init: count %d", count);
    check_touch(machine.current->index, bar, 8, Touch::WRITE, at);
    *bar = pack({count, count, 0, 0});
}

void mbarrier_inval(uint64_t *bar, At at)
{
    mbarrier_must_exist(bar, "mbarrier.inval", at);
    check_touch(machine.current->index, bar, 8, Touch::WRITE, at);
    *bar = ~0ull;
}

static void arrive(int thread, uint64_t *bar, Object o, int count, At at)
{
    if (count < 1 || o.pending < count)
        trap(at, "mbarrier.arrive: %d more arrivals than the count of %d", count - o.pending,
             o.expected);
    clock_release(bar, thread);
    o.pending -= count;
    put(bar, o);
}

uint64_t mbarrier_arrive(uint64_t *bar, int count, int expected_bytes, bool drop, At at)
{
    Object o = get(bar, "mbarrier.arrive", at);
    const uint64_t token = *bar;
    if (expected_bytes >= 0) expect(o, expected_bytes, at);
    if (drop) o.expected -= count;
    arrive(machine.current->index, bar, o, count, at);
    return token;
}

void mbarrier_arrive_for(int thread, uint64_t *bar, int count, At at)
{
    arrive(thread, bar, unpack(*bar), count, at);
}

void mbarrier_add_pending(uint64_t *bar, int count, At at)
{
    Object o = get(bar, "cp.async.mbarrier.arrive", at);
    o.pending += count;
    *bar = pack(o);
}

int mbarrier_pending_count(uint64_t token) { return unpack(token).pending; }

void mbarrier_expect_tx(uint64_t *bar, int bytes, At at)
{
    Object o = get(bar, "mbarrier.expect_tx", at);
    expect(o, bytes, at);
    *bar = pack(o);
}

void mbarrier_complete_tx(uint64_t *bar, int bytes, At at)
{
    Object o = get(bar, "mbarrier.complete_tx", at);
    clock_release(bar, machine.current->index);
    o.bytes -= bytes;
    put(bar, o);
}

/* Runs outside of any thread: a missing barrier ends the launch with the next finding or deadlock.
 */
void mbarrier_finish_bytes(uint64_t *bar, int bytes)
{
    if (!exists(bar)) {
        record(nullptr, nullptr, "an asynchronous copy completes on an mbarrier that is gone");
        return;
    }
    Object o = unpack(*bar);
    clock_release(bar, ENGINE);
    o.bytes -= bytes;
    put(bar, o);
}

bool mbarrier_test(uint64_t *bar, uint32_t parity, At at)
{
    if (get(bar, "mbarrier.test_wait", at).parity == parity) {
        spin(at);
        return false;
    }
    clock_acquire(bar, machine.current->index);
    return true;
}

void mbarrier_wait(uint64_t *bar, uint32_t parity, At at)
{
    Thread &t = *machine.current;
    while (get(bar, "mbarrier.try_wait", at).parity == parity) {
        t.bar = bar;
        t.parity = parity;
        block_on(State::MBARRIER, "mbarrier.try_wait", at);
    }
    clock_acquire(bar, t.index);
}

} // namespace hostcuda
