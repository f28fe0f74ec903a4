/* cudart_memory.cpp - device memory, pinned memory, copies and fills. */
#include "cudart.h"
#include <algorithm>
#include <cstdlib>

namespace hostcuda {

namespace {

struct Memory {
    struct Block {
        size_t bytes;
        int device;
    };
    std::map<char *, Block> device, pinned;
    size_t used[8] = {};
    size_t capacity = (size_t)16 << 30;

    Memory()
    {
        if (const char *text = getenv("HOSTCUDA_MEMORY")) capacity = strtoull(text, nullptr, 0);
    }
};
Memory &memory()
{
    static Memory m;
    return m;
}

cudaError_t allocate(void **p, size_t n)
{
    Memory &m = memory();
    if (!p) return failed(cudaErrorInvalidValue);
    *p = nullptr;
    if (!device_count()) return failed(cudaErrorNoDevice);
    if (!n) return cudaSuccess;
    size_t rounded = align_up(n, 512), &used = m.used[current_device()];
    if (rounded > m.capacity || used > m.capacity - rounded)
        return failed(cudaErrorMemoryAllocation);
    *p = device_alloc(n);
    if (!*p) return failed(cudaErrorMemoryAllocation);
    used += rounded;
    m.device[(char *)*p] = {rounded, current_device()};
    return cudaSuccess;
}

cudaError_t release(void *p)
{
    Memory &m = memory();
    auto at = m.device.find((char *)p);
    if (at == m.device.end() || !device_free(p)) return failed(cudaErrorInvalidValue);
    m.used[at->second.device] -= at->second.bytes;
    m.device.erase(at);
    return cudaSuccess;
}

bool is_device(const void *p) { return device_contains(p, 1) && !is_pinned(p); }

/* Which side an address belongs to must fit the kind of copy. */
bool sides_fit(void *d, const void *s, size_t n, cudaMemcpyKind kind)
{
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind == cudaMemcpyDefault) {
        to_device = is_device(d);
        from_device = is_device(s);
    }
    if (to_device && !device_contains(d, n)) return false;
    if (from_device && !device_contains(s, n)) return false;
    if (kind == cudaMemcpyHostToDevice && is_device(s)) return false;
    return kind != cudaMemcpyDeviceToHost || !is_device(d);
}

cudaError_t copy_now(void *d, const void *s, size_t n)
{
    memmove(d, s, n);
    if (device_contains(d, n)) host_wrote(d, n);
    return cudaSuccess;
}

/* Pageable sources are copied at once, as the driver stages them; a destination on the host holds
 * nothing of use until the copy has run. */
cudaError_t copy_later(Stream *stream, void *d, const void *s, size_t n)
{
    bool staged = !stream->capture && !device_contains(s, n);
    auto kept = std::make_shared<std::vector<char>>();
    if (staged) kept->assign((const char *)s, (const char *)s + n);
    if (!stream->capture && !device_contains(d, n) && stream_mode() != EAGER) memset(d, 0xff, n);
    return issue(stream, {"cudaMemcpyAsync",
                          [=] { return copy_now(d, staged ? kept->data() : s, n); },
                          {}});
}

cudaError_t fill_later(Stream *stream, void *p, int value, size_t n)
{
    return issue(stream, {"cudaMemsetAsync",
                          [=] {
                              memset(p, value, n);
                              host_wrote(p, n);
                              return cudaSuccess;
                          },
                          {}});
}

cudaError_t new_pinned(void **p, size_t n)
{
    if (!p) return failed(cudaErrorInvalidValue);
    *p = nullptr;
    if (!n) return cudaSuccess;
    if (posix_memalign(p, 4096, align_up(n, 4096))) return failed(cudaErrorMemoryAllocation);
    memset(*p, 0xff, n);
    region_add(*p, n);
    memory().pinned[(char *)*p] = {n, current_device()};
    return cudaSuccess;
}

/* A copy with the whole program waiting for it */
cudaError_t copy_waiting(void *d, const void *s, size_t n)
{
    if (any_capture())
        if (cudaError_t e = unsafe_in_capture()) return e;
    run_legacy();
    if (cudaError_t e = entering("")) return e;
    if (device_contains(s, n)) note_host_read(s, n);
    return copy_now(d, s, n);
}

} // namespace

size_t device_memory() { return memory().capacity; }

bool is_pinned(const void *p)
{
    auto &pinned = memory().pinned;
    auto at = pinned.upper_bound((char *)p);
    if (at == pinned.begin()) return false;
    --at;
    return (const char *)p < at->first + at->second.bytes;
}

} // namespace hostcuda

using namespace hostcuda;

extern "C" {

void hostcuda_set_memory(size_t bytes) { memory().capacity = bytes; }
int hostcuda_contains(const void *p, size_t n) { return device_contains(p, n); }
void hostcuda_wrote(const void *p, size_t n) { host_wrote(p, n); }

cudaError_t cudaMalloc(void **p, size_t n)
{
    ENTER();
    if (any_capture())
        if (cudaError_t e = unsafe_in_capture()) return e;
    return allocate(p, n);
}

/* Waits for the device. */
cudaError_t cudaFree(void *p)
{
    if (!p) return cudaSuccess;
    if (any_capture())
        if (cudaError_t e = unsafe_in_capture()) return e;
    run_everything();
    return release(p);
}

cudaError_t cudaMallocAsync(void **p, size_t n, cudaStream_t handle)
{
    ENTER();
    Stream *s = find_stream(handle);
    if (!s) return failed(cudaErrorInvalidResourceHandle);
    if (s->capture) return spoil(s->capture, cudaErrorStreamCaptureUnsupported);
    return allocate(p, n);
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t handle)
{
    ENTER();
    Stream *s = find_stream(handle);
    if (!s || (p && !memory().device.count((char *)p))) return failed(cudaErrorInvalidValue);
    if (s->capture) return spoil(s->capture, cudaErrorStreamCaptureUnsupported);
    return p ? issue(s, {"cudaFreeAsync", [p] { return release(p); }, {}}) : cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t n)
{
    ENTER();
    if (cudaError_t e = unsafe_in_capture()) return e;
    return new_pinned(p, n);
}

cudaError_t cudaHostAlloc(void **p, size_t n, unsigned)
{
    ENTER();
    if (cudaError_t e = unsafe_in_capture()) return e;
    return new_pinned(p, n);
}

cudaError_t cudaFreeHost(void *p)
{
    auto at = memory().pinned.find((char *)p);
    if (!p) return cudaSuccess;
    if (cudaError_t e = unsafe_in_capture()) return e;
    if (at == memory().pinned.end()) return failed(cudaErrorInvalidValue);
    run_everything();
    memory().pinned.erase(at);
    region_remove(p);
    free(p);
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *p, size_t n, unsigned)
{
    ENTER();
    if (cudaError_t e = unsafe_in_capture()) return e;
    if (!p || !n || is_pinned(p)) return failed(cudaErrorInvalidValue);
    region_add(p, n);
    memory().pinned[(char *)p] = {n, current_device()};
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *p)
{
    if (!memory().pinned.count((char *)p)) return failed(cudaErrorInvalidValue);
    run_everything();
    memory().pinned.erase((char *)p);
    region_remove(p);
    return cudaSuccess;
}

cudaError_t cudaHostGetDevicePointer(void **out, void *p, unsigned)
{
    ENTER();
    if (!is_pinned(p)) return failed(cudaErrorInvalidValue);
    *out = p;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *a, const void *p)
{
    ENTER();
    memset(a, 0, sizeof *a);
    a->type = is_pinned(p) ? cudaMemoryTypeHost
                           : is_device(p) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    if (a->type != cudaMemoryTypeUnregistered) a->devicePointer = (void *)p;
    if (a->type != cudaMemoryTypeDevice) a->hostPointer = (void *)p;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    ENTER();
    if (!device_count()) return failed(cudaErrorNoDevice);
    size_t used = memory().used[current_device()];
    if (available) *available = memory().capacity - std::min(used, memory().capacity);
    if (total) *total = memory().capacity;
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *d, const void *s, size_t n, cudaMemcpyKind kind)
{
    ENTER();
    if (!n) return cudaSuccess;
    if (!sides_fit(d, s, n, kind)) return failed(cudaErrorInvalidValue);
    return copy_waiting(d, s, n);
}

cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, cudaMemcpyKind kind,
                            cudaStream_t handle)
{
    ENTER();
    Stream *stream = find_stream(handle);
    if (!stream) return failed(cudaErrorInvalidResourceHandle);
    if (!n) return cudaSuccess;
    if (!sides_fit(d, s, n, kind)) return failed(cudaErrorInvalidValue);
    return copy_later(stream, d, s, n);
}

cudaError_t cudaMemcpyPeerAsync(void *d, int, const void *s, int, size_t n, cudaStream_t handle)
{
    return cudaMemcpyAsync(d, s, n, cudaMemcpyDeviceToDevice, handle);
}

cudaError_t cudaMemset(void *p, int value, size_t n)
{
    ENTER();
    if (!n) return cudaSuccess;
    if (!device_contains(p, n)) return failed(cudaErrorInvalidValue);
    if (any_capture())
        if (cudaError_t e = unsafe_in_capture()) return e;
    return fill_later(find_stream(nullptr), p, value, n);
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t handle)
{
    ENTER();
    Stream *s = find_stream(handle);
    if (!s) return failed(cudaErrorInvalidResourceHandle);
    if (!n) return cudaSuccess;
    if (!device_contains(p, n)) return failed(cudaErrorInvalidValue);
    return fill_later(s, p, value, n);
}

cudaError_t cudaGetSymbolAddress(void **p, const void *symbol)
{
    ENTER();
    Variable *v = find_symbol(symbol);
    if (!v) return failed(cudaErrorInvalidSymbol);
    *p = v->memory;
    return cudaSuccess;
}

cudaError_t cudaMemcpyToSymbol(const void *symbol, const void *s, size_t n, size_t offset,
                               cudaMemcpyKind)
{
    ENTER();
    Variable *v = find_symbol(symbol);
    if (!v) return failed(cudaErrorInvalidSymbol);
    if (offset > v->size || n > v->size - offset) return failed(cudaErrorInvalidValue);
    return copy_waiting(v->memory + offset, s, n);
}

cudaError_t cudaMemcpyFromSymbol(void *d, const void *symbol, size_t n, size_t offset,
                                 cudaMemcpyKind)
{
    ENTER();
    Variable *v = find_symbol(symbol);
    if (!v) return failed(cudaErrorInvalidSymbol);
    if (offset > v->size || n > v->size - offset) return failed(cudaErrorInvalidValue);
    return copy_waiting(d, v->memory + offset, n);
}

} // extern "C"
