/* device.h - where tensors live and run. One Device per process and GPU; the CPU is the first
 * implementation. Above this header nothing knows which it is. */
#ifndef DEVICE_H
#define DEVICE_H
#include "base/log.h"
#include "graph/graph.h"

typedef struct Device Device;

/* which: "cpu", "cuda" or "auto" (a GPU if there is one, else the CPU, said in one line).
 * threads: OpenMP threads of the CPU, 0 = all cores this process may use. */
Status device_open(Device **d, const char *which, int threads, Log *log);
void   device_close(Device *d);                       /* accepts NULL */

/* Zeroed, 256-byte aligned; what: for the error, "optimizer state". */
Status device_alloc(Device *d, void **p, size_t bytes, const char *what);
void   device_release(Device *d, void *p);            /* accepts NULL */
Status device_write(Device *d, void *to, const void *host, size_t bytes);
Status device_read(Device *d, void *host, const void *from, size_t bytes);

Status device_run(Device *d, const Tensor *node);     /* enqueues one node */
Status device_sync(Device *d);
Stream *device_stream(Device *d);                     /* for launchers outside a graph: sweeps */

bool device_is_gpu(const Device *d);                  /* which launchers a sweep calls */

const char *device_text(const Device *d);             /* "CPU, 2 threads, AVX-512" */
#endif
