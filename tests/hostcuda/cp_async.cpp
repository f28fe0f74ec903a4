/* cp_async.cpp - cp.async: copies of 4, 8 or 16 bytes into shared memory, waited for in groups.
 *
 * "Early" copies land at issue and so overwrite a buffer that is still in use; "late" ones leave
 * 0xFF bytes until the wait. Either way the checker takes the destination as pending until the
 * wait.
 */
#include "check.h"

#include <cstring>

namespace hostcuda
{

static void land(const CopyInFlight &c)
{
    memcpy(c.shared, c.global, (size_t)c.source_bytes);
    memset(c.shared + c.source_bytes, 0, (size_t)(c.bytes - c.source_bytes));
}

static void finish(int thread, const CopyInFlight &c)
{
    if (!c.landed) land(c);
    check_pending_write(c.shared, (size_t)c.bytes, false);
    check_touch(thread, c.shared, (size_t)c.bytes, Touch::WRITE, c.at);
}

void cp_async(void *shared, const void *global, int bytes, int source_bytes, At at)
{
    Thread &t = *machine.current;
    if ((bytes != 4 && bytes != 8 && bytes != 16) || source_bytes < 0 || source_bytes > bytes)
        trap(at, "cp.async: cp-size %d, src-size %d", bytes, source_bytes);
    need_own_shared(shared, (size_t)bytes, (size_t)bytes, "cp.async", at);
    need_global(global, (size_t)source_bytes, source_bytes ? (size_t)bytes : 1, "cp.async", at);
    if (source_bytes) check_touch(t.index, global, (size_t)source_bytes, Touch::READ, at);
    check_touch(t.index, shared, (size_t)bytes, Touch::WRITE, at);
    check_pending_write(shared, (size_t)bytes, true);
    CopyInFlight c = {static_cast<char *>(shared),
                      static_cast<const char *>(global),
                      bytes,
                      source_bytes,
                      at,
                      !choose_late()};
    if (c.landed) land(c);
    else memset(shared, 0xff, (size_t)bytes);
    t.copies.push_back(c);
}

void cp_async_commit(At)
{
    Thread &t = *machine.current;
    t.copy_groups.push_back(std::move(t.copies));
    t.copies.clear();
}

void cp_async_wait(int groups_left, At)
{
    Thread &t = *machine.current;
    auto &groups = t.copy_groups;
    const size_t left = (size_t)groups_left;
    const size_t n = groups.size() > left ? groups.size() - left : 0;
    for (size_t i = 0; i < n; i++)
        for (const CopyInFlight &c : groups[i]) finish(t.index, c);
    groups.erase(groups.begin(), groups.begin() + (ptrdiff_t)n);
}

/* What is still on its way may land where another block's memory is by then. */
void cp_async_thread_exits(const Thread &t)
{
    for (const auto &group : t.copy_groups)
        if (!group.empty()) trap(group[0].at, "exit while this copy is in flight");
    if (!t.copies.empty()) trap(t.copies[0].at, "exit while this copy is in flight");
}

void cp_async_mbarrier_arrive(uint64_t *bar, bool noinc, At at)
{
    Thread &t = *machine.current;
    mbarrier_must_exist(bar, "cp.async.mbarrier.arrive", at);
    std::vector<CopyInFlight> all = std::move(t.copies);
    for (auto &g : t.copy_groups) all.insert(all.end(), g.begin(), g.end());
    t.copies.clear();
    t.copy_groups.clear();
    if (!noinc) mbarrier_add_pending(bar, 1, at);
    const int thread = t.index;
    auto arrive = [all, bar, thread, at] {
        for (const CopyInFlight &c : all) finish(thread, c);
        mbarrier_arrive_for(thread, bar, 1, at);
    };
    if (choose_late()) engine_push(arrive);
    else arrive();
}

} // namespace hostcuda
