/* device_table.h - what a kind of device implements; device.c calls it. Meanings are device.h's. */
#ifndef DEVICE_TABLE_H
#define DEVICE_TABLE_H
#include "exec/device.h"

typedef struct {
    const char *name;                                   /* "cpu", "cuda" */
    Status (*open)(Device *d, int index, int threads);  /* fills stream, own and text */
    void (*close)(Device *d);                           /* after a failed open, too */
    Status (*alloc)(void **p, size_t bytes);            /* zeroed; ERR_SPACE without a message */
    void (*release)(void *p);
    Status (*write)(Device *d, void *to, const void *host, size_t bytes);
    Status (*read)(Device *d, void *host, const void *from, size_t bytes);
    Status (*copy)(Device *d, void *to, const void *from, size_t bytes);
    Status (*run)(const Device *d, const Tensor *node);
    void (*gradients)(Device *d, bool wanted);          /* NULL: makes no difference */
    Status (*sync)(Device *d);
    bool fuses;                                         /* has kernels for what ops/fusions.h makes */
    size_t (*free_bytes)(size_t *total);                /* NULL: not known */
    /* NULL: device_feed() is device_write() */
    Status (*feed_new)(Feed **f, size_t most_bytes); /* of the current device */
    void (*feed_free)(Feed *f);
    Status (*feed)(Feed *f, void *to, const void *host, size_t bytes);
    /* NULL: none, in order */
    Status (*aside_begin)(Device *d);
    Status (*aside_end)(Device *d);
    Status (*aside_wait)(Device *d);
    /* NULL: it cannot record */
    Status (*record_begin)(Device *d);
    Status (*record_end)(Device *d, Recording **r);
    Status (*replay)(Device *d, const Recording *r);
    void (*recording_free)(Recording *r);
    Status (*mark)(Device *d, int number);
    Status (*marks_ms)(Device *d, float *ms, int n);
} DeviceTable;

struct Feed {
    Device *device;
}; /* the first member of a kind's own */

struct Device {
    const DeviceTable *kind;
    Stream *stream; /* owned by the kind */
    void *own;      /* the kind's */
    Dtype act;
    struct DeviceChoices *choices; /* owned: of choices.c, or NULL */
    struct Held {
        void *p;
        size_t bytes;
    } *held; /* owned: what was allocated and not released */
    int n_held, cap_held;
    size_t bytes, peak; /* of it, now and at most */
    double fit;     /* how much of what was refused last was free, 0 to 1; 0: not known */
    char text[160];
};

extern const DeviceTable device_cpu, device_count;
#if EQ_CUDA
extern const DeviceTable device_cuda;
int cuda_device_count(const char **why_none); /* GPUs that can be used; *why_none when it is 0 */
void cuda_device_line(Text *out, int index);
void cuda_device_identity(char gpu[128], char versions[64]); /* of the current one */
#endif
#endif
