/* launch.cpp - the launch of a grid: what the driver would refuse, and the order of the clusters.
 */
#include "check.h"

#include <algorithm>

namespace hostcuda
{

static uint64_t volume(dim3 d) { return (uint64_t)d.x * d.y * d.z; }

static const char *fault(const Kernel &k, const LaunchConfig &c)
{
    const uint64_t threads = volume(c.block), ctas = volume(c.cluster);
    if (threads == 0 || threads > 1024 || c.block.z > 64) return "launch: bad block size";
    if (threads > k.max_threads) return "launch: more threads than the kernel's __launch_bounds__";
    if (volume(c.grid) == 0 || c.grid.x > 0x7fffffffu || c.grid.y > 65535 || c.grid.z > 65535)
        return "launch: bad grid size";
    if (ctas == 0 || ctas > (k.big_cluster ? MAX_CLUSTER : 8))
        return "launch: bad cluster size (over 8 needs NonPortableClusterSizeAllowed)";
    if (c.grid.x % c.cluster.x || c.grid.y % c.cluster.y || c.grid.z % c.cluster.z)
        return "launch: the grid is not a multiple of the cluster";
    if (c.dynamic_shared > k.max_dynamic_shared)
        return "launch: more dynamic shared memory than "
               "cudaFuncAttributeMaxDynamicSharedMemorySize allows";
    return nullptr;
}

static void set_registers(const LaunchConfig &c)
{
    auto index = [](dim3 d) { return Index3{d.x, d.y, d.z}; };
    special.ntid = index(c.block);
    special.nctaid = index(c.grid);
    special.cluster_nctaid = index(c.cluster);
    special.nclusterid = {c.grid.x / c.cluster.x, c.grid.y / c.cluster.y, c.grid.z / c.cluster.z};
    special.cluster_nctarank = (uint32_t)volume(c.cluster);
    special.is_explicit_cluster = special.cluster_nctarank > 1;
    special.nwarpid = (uint32_t)(volume(c.block) + LANES - 1) / LANES;
    special.dynamic_smem_size = (uint32_t)c.dynamic_shared;
    special.total_smem_size = (uint32_t)machine.shared_used;
    special.gridid = (uint32_t)counts.launches;
}

/* Blocks have no order on a GPU: the schedules run them forwards, backwards or shuffled. */
static std::vector<uint64_t> cluster_order(uint64_t n)
{
    std::vector<uint64_t> order(n);
    for (uint64_t i = 0; i < n; i++) order[i] = settings.schedule == 1 ? n - 1 - i : i;
    for (uint64_t i = n; settings.schedule >= 2 && i-- > 1;)
        std::swap(order[i], order[random_next() % (i + 1)]);
    return order;
}

cudaError_t launch(Kernel &kernel, const LaunchConfig &config)
{
    machine.kernel = &kernel;
    clear_error();
    const char *bad = fault(kernel, config);
    if (!bad && !layout_shared(kernel, config.dynamic_shared))
        bad = "launch: over 48 KiB of static or 227 KiB of shared memory in all";
    if (bad) {
        record(nullptr, nullptr, "%s", bad);
        return cudaErrorInvalidConfiguration;
    }
    machine.config = config;
    machine.cta_threads = (int)volume(config.block);
    machine.random = settings.seed * 0x9E3779B97F4A7C15ull | 1;
    counts.launches++;
    set_registers(config);
    clock_launch_begin();
    check_launch_begin();
    const Index3 n = special.nclusterid;
    for (uint64_t i : cluster_order((uint64_t)n.x * n.y * n.z)) {
        const Index3 id = {(uint32_t)(i % n.x), (uint32_t)(i / n.x % n.y),
                           (uint32_t)(i / n.x / n.y)};
        if (!run_cluster(id)) return cudaErrorLaunchFailure;
    }
    return cudaSuccess;
}

} // namespace hostcuda
