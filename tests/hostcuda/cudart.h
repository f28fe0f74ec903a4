/* cudart.h - what the files of the simulated CUDA runtime share.
 *
 * A stream is a queue of work. Work runs on this thread when something waits for it (or at once, or at
 * random: hostcuda_runtime.h), so a program that forgets to wait sees stale memory. While a stream is
 * captured, its work goes to the nodes of a graph instead.
 */
#pragma once
#include "hostcuda.h"
#include "hostcuda_runtime.h"
#include "machine.h"
#include "ptx.h"
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace hostcuda {

/* ---- errors ---- */
/* Remembers an error for cudaGetLastError() and returns it. */
cudaError_t failed(cudaError_t e);
/* ... of a kernel: every later call returns it. */
cudaError_t failed_for_good(cudaError_t e);
/* At the start of each runtime function: an ordered failure, or a failed kernel's error. */
cudaError_t entering(const char *function);
#define ENTER()                                                                                    \
    do {                                                                                           \
        if (cudaError_t entered_ = hostcuda::entering(__func__)) return entered_;                  \
    } while (0)

/* ---- streams ---- */
struct Stream;
struct Capture;

struct Mark { /* the first `count` works of a stream */
    Stream *stream;
    uint64_t count;
};

struct Work {
    std::string name;
    std::function<cudaError_t()> run; /* empty: only waits */
    std::vector<Mark> after;          /* of other streams */
};

struct Stream {
    std::deque<Work> queue;
    uint64_t issued = 0, done = 0;
    bool blocking = true; /* ordered with the legacy stream */
    int priority = 0;
    Capture *capture = nullptr;
    std::vector<size_t> capture_after; /* nodes that the next captured node follows */
};

enum { EAGER, LAZY, RANDOM };
int stream_mode();
/* Null and the special handles are the legacy stream and the thread's; null result: no such stream. */
Stream *find_stream(cudaStream_t handle);
/* Queues work (or captures it) after what the stream holds. */
cudaError_t issue(Stream *s, Work work);
void run_up_to(const Mark &m);
void run_stream(Stream *s);
void run_everything();
/* Waits for what a synchronous copy waits for: the legacy stream and the blocking ones. */
void run_legacy();
/* The host has read device memory: reports pending work that writes there later. */
void note_host_read(const void *p, size_t n);

/* ---- graphs ---- */
struct Node {
    Work work;
    std::vector<size_t> after;
};
struct Graph {
    std::vector<Node> nodes;
};
struct Capture {
    std::unique_ptr<Graph> graph;
    cudaStreamCaptureMode mode;
    Stream *origin;
    std::set<Stream *> members;
    bool invalid = false;
};
void capture_work(Stream *s, Work work);
void forget_events(const Capture *c); /* recorded in a capture that has ended */
/* Whether some stream is captured in a mode that forbids calls such as cudaMalloc here; such a call
 * spoils the capture. */
cudaError_t unsafe_in_capture();
/* A captured stream was asked to synchronise. */
cudaError_t spoil(Capture *c, cudaError_t e);
bool any_capture();

/* ---- kernels ---- */
struct KernelEntry {
    Module *module;
    std::string name;
    size_t asked_dynamic = 0; /* cudaFuncAttributeMaxDynamicSharedMemorySize, once it has been set */
    bool big_cluster = false;
    int registers = 0; /* from the binary image; 0: there is none */
    bool launched = false;
};
KernelEntry *find_kernel(const void *host_function); /* null: unknown */
Variable *find_symbol(const void *host_variable);
int chip(); /* 80 or 90 */

/* ---- devices and memory ---- */
int device_count();
int current_device();
size_t device_memory();
bool is_pinned(const void *p);

} // namespace hostcuda
