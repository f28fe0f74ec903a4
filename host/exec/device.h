/* device.h - where tensors live and run. One Device per process and GPU; the CPU is the first
 * implementation. Above this header nothing knows which it is.
 *
 * Work on a device is in the order of the calls. On a GPU everything but device_read() and
 * device_sync() only enqueues (device_write() waits until the host's bytes are taken), and a failure
 * of a kernel may show in a later call.
 */
#ifndef DEVICE_H
#define DEVICE_H
#include "base/log.h"
#include "graph/graph.h"

typedef struct Device Device;

/* which: "cpu", "cuda", "cuda:N" or "auto" (a GPU if there is one, else the CPU, said in one line).
 * precision: how activations and the weights that are multiplied are stored, "fp32", "bf16" (of a
 * GPU only, ERR_USAGE elsewhere) or "auto": bf16 on a GPU, fp32 on a CPU.
 * threads: OpenMP threads of the CPU, 0 = all cores this process may use. */
Status device_open(Device **d, const char *which, const char *precision, int threads, Log *log);
void   device_close(Device *d);                       /* accepts NULL */

/* A device that computes nothing and holds nothing, for plans of runs: it counts what is allocated
 * (device_bytes) and the arithmetic of the nodes that are run (device_flops). act: how activations would
 * be stored. Sweeps do not run there. */
Status device_open_counting(Device **d, Dtype act);
double device_flops(const Device *counting);

/* Zeroed, 256-byte aligned; what: for the error, "optimizer state". */
Status device_alloc(Device *d, void **p, size_t bytes, const char *what);
void   device_release(Device *d, void *p);            /* accepts NULL */
size_t device_bytes(const Device *d);                 /* allocated now, as asked for */
size_t device_peak(const Device *d);                  /* at most, since device_peak_restart() */
void   device_peak_restart(Device *d);
Status device_write(Device *d, void *to, const void *host, size_t bytes);
Status device_read(Device *d, void *host, const void *from, size_t bytes);
Status device_copy(Device *d, void *to, const void *from, size_t bytes); /* within the device */

Status device_run(Device *d, const Tensor *node);     /* enqueues one node */
/* Whether the nodes to come are of a graph that takes gradients: where not, kernels are not
 * chosen by how many images there are (kernels_choice.h). */
void   device_gradients(Device *d, bool wanted);
Status device_sync(Device *d);
Stream *device_stream(Device *d);                     /* for launchers outside a graph: sweeps */

/* A way for values that change with every step: device_feed() takes the host's bytes at once and
 * returns, and what is enqueued next sees them at `to`. On a GPU they pass through pinned memory,
 * large ones on a stream of their own while earlier work still runs. */
typedef struct Feed Feed;
Status device_feed_new(Feed **f, Device *d, size_t most_bytes);
void   device_feed_free(Feed *f);                     /* accepts NULL */
Status device_feed(Feed *f, void *to, const void *host, size_t bytes);

/* Work beside the rest: what is enqueued between begin and end starts behind all that was enqueued
 * before it, in the order of its own kind, and runs while what is enqueued later does, which may not
 * touch the same memory before device_aside_wait(). Does not nest. Where a device has no such way, it
 * is work like any other. */
Status device_aside_begin(Device *d);
Status device_aside_end(Device *d);
Status device_aside_wait(Device *d);                  /* what is enqueued next waits for all of it */

/* What is enqueued between begin and end is not run but kept, and run by every replay, with the same
 * addresses. For devices that can; the same calls must have been made once before, unrecorded. */
typedef struct Recording Recording;
bool   device_can_record(const Device *d);
Status device_record_begin(Device *d);
Status device_record_end(Device *d, Recording **r);   /* also after a failure in between; r then NULL */
Status device_replay(Device *d, const Recording *r);
void   device_recording_free(Device *d, Recording *r); /* accepts NULL */

/* Times on the device's own clock. mark: numbers from 0; device_marks_ms: of all marks made since the
 * last call, after a device_sync(), ms[i] = time from mark i to mark i + 1. */
Status device_mark(Device *d, int number);
Status device_marks_ms(Device *d, float *ms, int n);

bool device_is_gpu(const Device *d);                  /* which launchers a sweep calls */
bool device_fuses(const Device *d);                   /* has kernels of its own for fused nodes */
Dtype device_act(const Device *d);                    /* the precision: DTYPE_F32 or DTYPE_BF16 */
Graph *device_graph(const Device *d);                 /* an empty graph to run there */
/* Passes s on; where it is ERR_SPACE, the message also says which settings would fit in what was free
 * when device_alloc() refused. recompute: the setting's name, NULL where it is on, or there is none. */
Status device_memory_advice(Status s, const Device *d, const char *batch_setting, int batch,
                            const char *recompute);

const char *device_text(const Device *d);             /* "CPU, 2 threads, AVX-512" */
const char *device_bits(const Device *d);             /* of it what decides last bits: not which GPU */

int device_gpus(void); /* how many can be used here */
/* The GPUs of this machine, a line each; one line that says why there are none. */
void device_list_gpus(Text *out);
#endif
