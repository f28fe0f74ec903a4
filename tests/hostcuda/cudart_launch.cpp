/* cudart_launch.cpp - nvcc's registration and launch interface, and attributes of kernels. */
#include "cudart.h"
#include "fatbin.h"
#include <algorithm>
#include <cstdlib>

namespace hostcuda {

namespace {

/* Registration runs before main(), so all of this is made on first use. */
struct Binary {
    Images images;
    std::unique_ptr<Module> module; /* parsed when something of it is first used */
};
struct Registered {
    Binary *binary;
    std::string name;
    std::unique_ptr<KernelEntry> kernel;
};
struct Registry {
    std::vector<std::unique_ptr<Binary>> binaries;
    std::map<const void *, Registered> kernels, variables;
};
Registry &registry()
{
    static Registry *r = new Registry; /* used until the very end of the program */
    return *r;
}

Module *module_of(Binary *b)
{
    if (!b->module) b->module = std::make_unique<Module>(std::move(b->images.ptx));
    return b->module.get();
}

struct CallConfiguration {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
};
std::vector<CallConfiguration> &configurations()
{
    static std::vector<CallConfiguration> stack;
    return stack;
}

cudaError_t refused(cudaError_t code, const std::string &kernel, const char *why)
{
    return failed(launch_refused(code, (kernel + ": " + why).c_str()));
}

size_t static_shared(const Module &m, const Function &f)
{
    size_t bytes = 0;
    for (int which : f.shared)
        bytes = align_up(bytes, m.shared[which].align) + m.shared[which].bytes;
    return bytes;
}

/* Static and dynamic shared memory share 48 KiB until a kernel asks for something else. */
size_t max_dynamic(const KernelEntry &k, const Function &f)
{
    size_t fixed = static_shared(*k.module, f), least = 48 * 1024;
    return k.asked_dynamic ? k.asked_dynamic : fixed < least ? least - fixed : 0;
}

/* Of a block: warps have theirs in units of 256. k.registers 0 is unknown. */
uint64_t registers_of(const KernelEntry &k, uint64_t threads)
{
    return (threads + 31) / 32 * align_up((size_t)k.registers * 32, 256);
}

/* The file that HOSTCUDA_KERNELS names gets the name of each kernel that runs, in children too. */
void note_launch(KernelEntry &k)
{
    static const char *path = getenv("HOSTCUDA_KERNELS");
    static FILE *file = path ? fopen(path, "a") : nullptr;
    if (!file || k.launched) return;
    k.launched = true;
    fprintf(file, "%s\n", k.name.c_str());
    fflush(file);
}

/* What the driver refuses at once, in the order in which it looks. */
cudaError_t check_launch(const KernelEntry &k, const Function &f, const LaunchConfig &c)
{
    uint64_t threads = (uint64_t)c.block.x * c.block.y * c.block.z;
    if (!threads || threads > 1024 || c.block.z > 64)
        return refused(cudaErrorInvalidConfiguration, k.name, "bad size of the block");
    if (!c.grid.x || !c.grid.y || !c.grid.z || c.grid.x > 0x7fffffff || c.grid.y > 65535
        || c.grid.z > 65535)
        return refused(cudaErrorInvalidConfiguration, k.name, "bad size of the grid");
    if (threads > f.max_threads)
        return refused(cudaErrorInvalidConfiguration, k.name,
                       "more threads than its __launch_bounds__");
    if (c.dynamic_shared > max_dynamic(k, f))
        return refused(cudaErrorInvalidValue, k.name,
                       "more dynamic shared memory than "
                       "cudaFuncAttributeMaxDynamicSharedMemorySize allows");
    if (registers_of(k, threads) > 65536)
        return refused(cudaErrorLaunchOutOfResources, k.name, "more registers than there are");
    size_t blocks[3] = {c.grid.x, c.grid.y, c.grid.z};
    unsigned cluster[3] = {c.cluster.x, c.cluster.y, c.cluster.z};
    for (int d = 0; d < 3; d++)
        if (!cluster[d] || blocks[d] % cluster[d])
            return refused(cudaErrorInvalidConfiguration, k.name,
                           "the grid is no multiple of the cluster");
    return cudaSuccess;
}

cudaError_t launch_kernel(const void *host, LaunchConfig c, void **arguments, cudaStream_t stream)
{
    Stream *s = find_stream(stream);
    KernelEntry *k = find_kernel(host);
    const Function *f = k ? k->module->function(k->name) : nullptr;
    if (!s) return failed(cudaErrorInvalidResourceHandle);
    if (!f) return failed(launch_refused(cudaErrorInvalidDeviceFunction,
                                         "no PTX for this kernel and chip in the program"));
    if (f->cluster[0]) c.cluster = dim3(f->cluster[0], f->cluster[1], f->cluster[2]);
    if (cudaError_t e = check_launch(*k, *f, c)) return e;
    auto l = std::make_shared<Launch>();
    l->function = f;
    l->module = k->module;
    l->kernel.max_dynamic_shared = max_dynamic(*k, *f);
    l->kernel.big_cluster = k->big_cluster;
    l->kernel.registers = k->registers;
    l->arguments.resize(f->parameter_bytes + 128);
    for (size_t n = 0; n < f->parameters.size(); n++)
        memcpy(l->base() + f->parameters[n].offset, arguments[n], f->parameters[n].size);
    return issue(s, {"kernel " + k->name,
                     [l, c, k] {
                         note_launch(*k);
                         prepare_launch(*l);
                         return launch(l->kernel, c);
                     },
                     {}});
}

/* cudaLaunchKernelExC's attributes; false: one that we do not know */
bool apply(const cudaLaunchConfig_t &from, LaunchConfig &to)
{
    to.grid = from.gridDim;
    to.block = from.blockDim;
    to.dynamic_shared = from.dynamicSmemBytes;
    for (unsigned n = 0; n < from.numAttrs; n++) {
        const cudaLaunchAttribute &a = from.attrs[n];
        switch (a.id) {
        case cudaLaunchAttributeClusterDimension:
            to.cluster = dim3(a.val.clusterDim.x, a.val.clusterDim.y, a.val.clusterDim.z);
            break;
        case cudaLaunchAttributeIgnore:
        case cudaLaunchAttributePriority:
        case cudaLaunchAttributeProgrammaticStreamSerialization: break;
        default: return false;
        }
    }
    return true;
}

} // namespace

int chip()
{
    static const int arch = getenv("HOSTCUDA_ARCH") ? atoi(getenv("HOSTCUDA_ARCH")) : 90;
    return arch;
}

KernelEntry *find_kernel(const void *host_function)
{
    auto at = registry().kernels.find(host_function);
    if (at == registry().kernels.end()) return nullptr;
    Registered &r = at->second;
    if (!r.kernel) {
        r.kernel = std::make_unique<KernelEntry>();
        r.kernel->module = module_of(r.binary);
        r.kernel->name = r.name;
        auto registers = r.binary->images.registers.find(r.name);
        if (registers != r.binary->images.registers.end()) r.kernel->registers = registers->second;
    }
    return r.kernel.get();
}

Variable *find_symbol(const void *host_variable)
{
    auto at = registry().variables.find(host_variable);
    if (at == registry().variables.end()) return nullptr;
    return module_of(at->second.binary)->variable(at->second.name);
}

} // namespace hostcuda

using namespace hostcuda;

extern "C" {

void **__cudaRegisterFatBinary(void *wrapper)
{
    auto b = std::make_unique<Binary>();
    b->images = read_fatbin(wrapper, chip());
    registry().binaries.push_back(std::move(b));
    return (void **)registry().binaries.back().get();
}

void __cudaRegisterFatBinaryEnd(void **) {}
void __cudaUnregisterFatBinary(void **) {}
char __cudaInitModule(void **) { return 1; }

void __cudaRegisterFunction(void **binary, const char *host, char *, const char *name, int, uint3 *,
                            uint3 *, dim3 *, dim3 *, int *)
{
    registry().kernels[host] = {(Binary *)binary, name, nullptr};
}

void __cudaRegisterVar(void **binary, char *host, char *, const char *name, int, size_t, int, int)
{
    registry().variables[host] = {(Binary *)binary, name, nullptr};
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, CUstream_st *stream)
{
    configurations().push_back({grid, block, shared, stream});
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream)
{
    CallConfiguration c = configurations().back();
    configurations().pop_back();
    *grid = c.grid;
    *block = c.block;
    *shared = c.shared;
    *(cudaStream_t *)stream = c.stream;
    return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *host)
{
    *kernel = (cudaKernel_t)host;
    return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void *host, dim3 grid, dim3 block, void **arguments,
                             size_t shared, cudaStream_t stream)
{
    ENTER();
    LaunchConfig c;
    c.grid = grid;
    c.block = block;
    c.dynamic_shared = shared;
    return launch_kernel(host, c, arguments, stream);
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments,
                               size_t shared, cudaStream_t stream)
{
    return cudaLaunchKernel((const void *)kernel, grid, block, arguments, shared, stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *host,
                                void **arguments)
{
    ENTER();
    LaunchConfig c;
    if (!apply(*config, c)) return failed(cudaErrorNotSupported);
    return launch_kernel(host, c, arguments, config->stream);
}

cudaError_t cudaFuncSetAttribute(const void *host, cudaFuncAttribute attribute, int value)
{
    ENTER();
    KernelEntry *k = find_kernel(host);
    if (!k) return failed(cudaErrorInvalidDeviceFunction);
    int limit = 0;
    cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, current_device());
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        const Function *f = k->module->function(k->name);
        if (!f) return failed(cudaErrorInvalidDeviceFunction);
        if (value < 0 || value + (int)static_shared(*k->module, *f) > limit)
            return failed(cudaErrorInvalidValue);
        k->asked_dynamic = (size_t)value;
    } else if (attribute == cudaFuncAttributeNonPortableClusterSizeAllowed) {
        k->big_cluster = value;
    }
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, const void *host)
{
    ENTER();
    KernelEntry *k = find_kernel(host);
    const Function *f = k ? k->module->function(k->name) : nullptr;
    if (!f) return failed(cudaErrorInvalidDeviceFunction);
    memset(a, 0, sizeof *a);
    a->sharedSizeBytes = static_shared(*k->module, *f);
    a->localSizeBytes = f->local_bytes;
    a->maxThreadsPerBlock = (int)f->max_threads;
    a->numRegs = k->registers;
    a->ptxVersion = a->binaryVersion = chip();
    a->maxDynamicSharedSizeBytes = (int)max_dynamic(*k, *f);
    return cudaSuccess;
}

/* By registers (in units of 256 a warp), threads and shared memory (in units of 128 bytes). */
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *host,
                                                          int block_size, size_t dynamic_shared)
{
    ENTER();
    cudaFuncAttributes a;
    if (cudaError_t e = cudaFuncGetAttributes(&a, host)) return e;
    if (!blocks || block_size < 1) return failed(cudaErrorInvalidValue);
    *blocks = 0;
    if (block_size > a.maxThreadsPerBlock || dynamic_shared > (size_t)a.maxDynamicSharedSizeBytes)
        return cudaSuccess;
    int shared = 0, warps = (block_size + 31) / 32;
    cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerMultiprocessor, current_device());
    size_t used =
        align_up(a.sharedSizeBytes + dynamic_shared + 1024, 128); /* 1 KB is the system's */
    int by_shared = (int)((size_t)shared / used);
    int by_registers = 65536 / (warps * (int)align_up((size_t)std::max(a.numRegs, 16) * 32, 256));
    *blocks = std::min({32, 64 / warps, by_shared, by_registers});
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *host,
                                                                   int block_size,
                                                                   size_t dynamic_shared, unsigned)
{
    return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, host, block_size, dynamic_shared);
}

} // extern "C"
