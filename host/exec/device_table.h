/* device_table.h - what a kind of device implements; device.c calls it. */
#ifndef DEVICE_TABLE_H
#define DEVICE_TABLE_H
#include "exec/device.h"

typedef struct {
    const char *name;                                   /* "cpu", "cuda" */
    Status (*open)(Device *d, int threads);             /* fills stream and text */
    void (*close)(Device *d);                           /* after a failed open, too */
    Status (*alloc)(void **p, size_t bytes);            /* zeroed; ERR_SPACE without a message */
    void (*release)(void *p);
    Status (*write)(Device *d, void *to, const void *host, size_t bytes);
    Status (*read)(Device *d, void *host, const void *from, size_t bytes);
    Status (*run)(const Device *d, const Tensor *node);
    Status (*sync)(Device *d);
} DeviceTable;

struct Device {
    const DeviceTable *kind;
    Stream *stream; /* owned by the kind */
    char text[160];
};

extern const DeviceTable device_cpu;
#if EQ_CUDA
extern const DeviceTable device_cuda;
int cuda_device_count(const char **why_none); /* GPUs that can be used; *why_none when it is 0 */
#endif
#endif
