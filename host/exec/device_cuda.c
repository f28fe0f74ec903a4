/* device_cuda.c - one CUDA GPU: a stream on which everything is enqueued in order, a second one for
 * the batches that are copied ahead, a third for work aside, recordings as CUDA graphs. */
#include "exec/device_table.h"
#if EQ_CUDA
#include "kernels_choice.h"
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define RANGE_PUSH(name) nvtxRangePushA(name)
#define RANGE_POP() nvtxRangePop()
#else
#define RANGE_PUSH(name) ((void)(name))
#define RANGE_POP() ((void)0)
#endif

typedef struct {
    cudaStream_t ahead; /* of feeds */
    Stream *aside, *main; /* owned: of work aside; borrowed: the device's, while that is enqueued */
    cudaEvent_t turn;     /* where the two wait for one another */
    bool beside;          /* there is work aside that nothing waits for yet */
    cudaEvent_t *mark;  /* owned: [n_mark] */
    int n_mark;
} Own;

static Status failed(cudaError_t e, const char *doing)
{
    return e == cudaSuccess ? OK : FAIL(ERR_DEVICE, "CUDA %s: %s", doing, cudaGetErrorString(e));
}

static cudaStream_t handle(const Device *d) { return cuda_stream_handle(d->stream); }

int cuda_device_count(const char **why_none)
{
    int n = 0; /* untouched when there is no driver */
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n > 0) return n;
    cudaGetLastError(); /* not anyone's later error */
    *why_none = e == cudaErrorInsufficientDriver ? "no NVIDIA driver, or one too old for this build"
                : e == cudaSuccess || e == cudaErrorNoDevice ? "no NVIDIA GPU"
                                                             : cudaGetErrorString(e);
    return 0;
}

void cuda_device_line(Text *out, int index)
{
    struct cudaDeviceProp p;
    int driver = 0, runtime = 0;
    if (cudaGetDeviceProperties(&p, index) != cudaSuccess) {
        text_add(out, "cuda:%d: %s\n", index, cudaGetErrorString(cudaGetLastError()));
        return;
    }
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    text_add(out,
             "cuda:%d: %s, sm_%d%d, %d multiprocessors, %.1f GiB memory; driver for CUDA %d.%d, "
             "runtime %d.%d\n",
             index, p.name, p.major, p.minor, p.multiProcessorCount,
             (double)p.totalGlobalMem / (1 << 30), driver / 1000, driver % 1000 / 10,
             runtime / 1000, runtime % 1000 / 10);
}

void cuda_device_identity(char gpu[128], char versions[64])
{
    struct cudaDeviceProp p;
    int device = 0, driver = 0, runtime = 0;
    snprintf(gpu, 128, "unknown");
    if (cudaGetDevice(&device) == cudaSuccess && cudaGetDeviceProperties(&p, device) == cudaSuccess)
        snprintf(gpu, 128, "%.100s", p.name);
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    snprintf(versions, 64, "driver for CUDA %d, runtime %d", driver, runtime);
}

static Status open_gpu(Device *d, int index, int threads)
{
    (void)threads;
    struct cudaDeviceProp p;
    Own *own = d->own = calloc(1, sizeof *own);
    CHECK(own);
    TRY(failed(cudaSetDevice(index), "device"));
    TRY(failed(cudaGetDeviceProperties(&p, index), "device"));
    snprintf(d->text, sizeof d->text, "cuda:%d, %.100s, sm_%d%d", index, p.name, p.major, p.minor);
    TRY(cuda_stream_new(&d->stream));
    TRY(failed(cudaStreamCreateWithFlags(&own->ahead, cudaStreamNonBlocking), "stream"));
    TRY(cuda_stream_new(&own->aside));
    return failed(cudaEventCreateWithFlags(&own->turn, cudaEventDisableTiming), "event");
}

static void close_gpu(Device *d)
{
    Own *own = d->own;
    for (int i = 0; own && i < own->n_mark; i++) cudaEventDestroy(own->mark[i]);
    if (own && own->ahead) cudaStreamDestroy(own->ahead);
    if (own && own->turn) cudaEventDestroy(own->turn);
    if (own) cuda_stream_free(own->aside);
    cuda_stream_free(d->stream);
    if (own) free(own->mark);
    free(own);
}

/* ---- memory ------------------------------------------------------------------------------- */

static Status alloc(void **p, size_t bytes)
{
    cudaError_t e = cudaMalloc(p, bytes ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return ERR_SPACE;
    }
    TRY(failed(e, "memory"));
    e = cudaMemset(*p, 0, bytes);
    /* our streams do not wait for the null one */
    if (!e) e = cudaStreamSynchronize(NULL);
    if (e) cudaFree(*p), *p = NULL;
    return failed(e, "memory");
}

static void release(void *p) { cudaFree(p); }

static size_t free_bytes(size_t *total)
{
    size_t left = 0;
    *total = 0;
    cudaMemGetInfo(&left, total);
    return left;
}

static Status copy_in(Device *d, void *to, const void *host, size_t bytes)
{
    TRY(failed(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, handle(d)), "copy"));
    return failed(cudaStreamSynchronize(handle(d)), "copy");
}

static Status copy_out(Device *d, void *host, const void *from, size_t bytes)
{
    TRY(failed(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, handle(d)), "copy"));
    return failed(cudaStreamSynchronize(handle(d)), "copy");
}

static Status copy(Device *d, void *to, const void *from, size_t bytes)
{
    return failed(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, handle(d)), "copy");
}

/* ---- feeds -------------------------------------------------------------------------------- */

/* Two turns, so that the host fills one while the other is on its way. A large batch goes to the
 * device on the stream `ahead`, while earlier work runs, and is put in place by a copy within the
 * device; what is small goes in place at once. */
enum { TURNS = 2, LARGE = 1 << 16 };
typedef struct {
    Feed base;
    size_t most;
    int turn;
    void *pinned[TURNS], *near[TURNS]; /* owned: host and device memory; near NULL if not large */
    cudaEvent_t landed[TURNS], used[TURNS];
} CudaFeed;

static void feed_free(Feed *f)
{
    CudaFeed *c = (CudaFeed *)f;
    for (int i = 0; i < TURNS; i++) {
        if (c->used[i]) cudaEventSynchronize(c->used[i]);
        if (c->pinned[i]) cudaFreeHost(c->pinned[i]);
        if (c->near[i]) cudaFree(c->near[i]);
        if (c->landed[i]) cudaEventDestroy(c->landed[i]);
        if (c->used[i]) cudaEventDestroy(c->used[i]);
    }
    free(c);
}

static Status feed_new(Feed **out, size_t most)
{
    CudaFeed *c = calloc(1, sizeof *c);
    cudaError_t e = cudaSuccess;
    CHECK(c);
    c->most = most;
    *out = &c->base;
    for (int i = 0; i < TURNS && e == cudaSuccess; i++) {
        e = cudaMallocHost(&c->pinned[i], most ? most : 1);
        if (e == cudaSuccess && most >= LARGE) e = cudaMalloc(&c->near[i], most);
        if (e == cudaSuccess) e = cudaEventCreateWithFlags(&c->landed[i], cudaEventDisableTiming);
        if (e == cudaSuccess) e = cudaEventCreateWithFlags(&c->used[i], cudaEventDisableTiming);
    }
    if (e == cudaSuccess) return OK;
    cudaGetLastError();
    feed_free(&c->base);
    *out = NULL;
    return FAIL(e == cudaErrorMemoryAllocation ? ERR_SPACE : ERR_DEVICE,
                "no pinned memory for batches of %.1f MiB: %s", (double)most / 1048576,
                cudaGetErrorString(e));
}

static Status feed(Feed *f, void *to, const void *host, size_t bytes)
{
    CudaFeed *c = (CudaFeed *)f;
    int i = c->turn++ % TURNS;
    cudaStream_t stream = handle(f->device), ahead = ((Own *)f->device->own)->ahead;
    CHECK(bytes <= c->most);
    TRY(failed(cudaEventSynchronize(c->used[i]), "copy"));
    memcpy(c->pinned[i], host, bytes);
    if (c->near[i]) {
        TRY(failed(cudaMemcpyAsync(c->near[i], c->pinned[i], bytes, cudaMemcpyHostToDevice, ahead),
                   "copy"));
        TRY(failed(cudaEventRecord(c->landed[i], ahead), "copy"));
        TRY(failed(cudaStreamWaitEvent(stream, c->landed[i], 0), "copy"));
        TRY(copy(f->device, to, c->near[i], bytes));
    } else {
        TRY(failed(cudaMemcpyAsync(to, c->pinned[i], bytes, cudaMemcpyHostToDevice, stream),
                   "copy"));
    }
    return failed(cudaEventRecord(c->used[i], stream), "copy");
}

/* ---- work --------------------------------------------------------------------------------- */

static Status run(const Device *d, const Tensor *node)
{
    if (!node->op->cuda) return FAIL(ERR_BUG, "%s has no CUDA kernel", node->op->name);
    RANGE_PUSH(node->name);
    Status s = node->op->cuda(node, d->stream);
    RANGE_POP();
    return s;
}

static Status follow(const Own *own, const Stream *first, const Stream *then)
{
    TRY(failed(cudaEventRecord(own->turn, cuda_stream_handle(first)), "event"));
    return failed(cudaStreamWaitEvent(cuda_stream_handle(then), own->turn, 0), "event");
}

static Status aside_begin(Device *d)
{
    Own *own = d->own;
    CHECK(!own->main);
    TRY(follow(own, d->stream, own->aside));
    own->main = d->stream;
    d->stream = own->aside;
    own->beside = true;
    return OK;
}

static Status aside_end(Device *d)
{
    Own *own = d->own;
    d->stream = own->main;
    own->main = NULL;
    return OK;
}

static Status aside_wait(Device *d)
{
    Own *own = d->own;
    if (!own->beside) return OK;
    own->beside = false;
    return follow(own, own->aside, d->stream);
}

static void gradients(Device *d, bool wanted) { cuda_choose_for_gradients(d->stream, wanted); }

static Status wait_all(Device *d) { return failed(cudaStreamSynchronize(handle(d)), "wait"); }

struct Recording {
    cudaGraphExec_t exec;
};

static Status record_begin(Device *d)
{
    return failed(cudaStreamBeginCapture(handle(d), cudaStreamCaptureModeThreadLocal), "recording");
}

static Status record_end(Device *d, Recording **out)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    *out = NULL;
    cudaError_t e = cudaStreamEndCapture(handle(d), &graph);
    if (e == cudaSuccess) e = cudaGraphInstantiate(&exec, graph, 0);
    if (graph) cudaGraphDestroy(graph);
    if (e != cudaSuccess) cudaGetLastError(); /* not the next launch's error */
    if (e == cudaErrorMemoryAllocation)
        return FAIL(ERR_SPACE, "no memory on the GPU for the recorded graph");
    TRY(failed(e, "recording"));
    *out = malloc(sizeof **out);
    CHECK(*out);
    (*out)->exec = exec;
    return OK;
}

static Status replay(Device *d, const Recording *r)
{
    return failed(cudaGraphLaunch(r->exec, handle(d)), "replay");
}

static void recording_free(Recording *r)
{
    cudaGraphExecDestroy(r->exec);
    free(r);
}

static Status mark(Device *d, int number)
{
    Own *own = d->own;
    if (number >= own->n_mark) {
        own->mark = realloc(own->mark, (size_t)(number + 1) * sizeof *own->mark);
        CHECK(own->mark);
        while (own->n_mark <= number) {
            TRY(failed(cudaEventCreate(&own->mark[own->n_mark]), "event"));
            own->n_mark++;
        }
    }
    return failed(cudaEventRecord(own->mark[number], handle(d)), "event");
}

static Status marks_ms(Device *d, float *ms, int n)
{
    const Own *own = d->own;
    for (int i = 0; i < n; i++)
        TRY(failed(cudaEventElapsedTime(&ms[i], own->mark[i], own->mark[i + 1]), "event"));
    return OK;
}

const DeviceTable device_cuda = {.name = "cuda",
                                 .fuses = true,
                                 .open = open_gpu,
                                 .close = close_gpu,
                                 .alloc = alloc,
                                 .release = release,
                                 .write = copy_in,
                                 .read = copy_out,
                                 .copy = copy,
                                 .run = run,
                                 .gradients = gradients,
                                 .sync = wait_all,
                                 .free_bytes = free_bytes,
                                 .feed_new = feed_new,
                                 .feed_free = feed_free,
                                 .feed = feed,
                                 .aside_begin = aside_begin,
                                 .aside_end = aside_end,
                                 .aside_wait = aside_wait,
                                 .record_begin = record_begin,
                                 .record_end = record_end,
                                 .replay = replay,
                                 .recording_free = recording_free,
                                 .mark = mark,
                                 .marks_ms = marks_ms};
#endif
