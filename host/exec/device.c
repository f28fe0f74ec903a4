/* device.c - the device interface: picks a kind and hands over to it. */
#include "exec/choices.h"
#include "exec/device_table.h"
#if EQ_CUDA
#include "kernels_choice.h"
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* N of "cuda:N", 0 of "cuda"; -1: neither. */
static int cuda_index(const char *which)
{
    if (!strcmp(which, "cuda")) return 0;
    if (strncmp(which, "cuda:", 5) || !which[5] || strlen(which) > 8) return -1;
    for (const char *c = which + 5; *c; c++)
        if (*c < '0' || *c > '9') return -1;
    return atoi(which + 5);
}

/* The kind that `which` asks for. */
static Status choose(const DeviceTable **kind, int *index, const char *which, Log *log)
{
    bool any = !strcmp(which, "auto");
    *kind = &device_cpu;
    *index = any ? 0 : cuda_index(which);
    if (!strcmp(which, "cpu")) return OK;
    if (*index < 0)
        return FAIL(ERR_USAGE, "device = %s: expected auto, cpu, cuda or cuda:N", which);
    const char *why = "this program was built without CUDA";
#if EQ_CUDA
    int n = cuda_device_count(&why);
    if (*index < n) {
        *kind = &device_cuda;
        return OK;
    }
    if (n) return FAIL(ERR_DEVICE, "device = %s: found %d GPUs, counted from 0", which, n);
#endif
    if (!any) return FAIL(ERR_DEVICE, "device = %s: %s, expected auto or cpu", which, why);
    if (log) log_info(log, "device: CPU (%s)", why);
    return OK;
}

static Status set_precision(Device *d, const char *precision)
{
    bool gpu = device_is_gpu(d), automatic = !strcmp(precision, "auto");
    if (!strcmp(precision, "bf16") && !gpu)
        return FAIL(ERR_USAGE, "precision = bf16: the CPU computes in fp32 only, expected auto or "
                               "fp32");
    if (!automatic && strcmp(precision, "fp32") && strcmp(precision, "bf16"))
        return FAIL(ERR_USAGE, "precision = %s: expected auto, fp32 or bf16", precision);
    d->act = gpu && strcmp(precision, "fp32") ? DTYPE_BF16 : DTYPE_F32;
    size_t n = strlen(d->text);
    if (gpu)
        snprintf(d->text + n, sizeof d->text - n, ", %s", d->act == DTYPE_BF16 ? "bf16" : "fp32");
    return OK;
}

Status device_open(Device **d, const char *which, const char *precision, int threads, Log *log)
{
    const DeviceTable *kind;
    int index;
    *d = NULL;
    TRY(choose(&kind, &index, which, log));
    Device *r = calloc(1, sizeof *r);
    CHECK(r);
    r->kind = kind;
    Status s = kind->open(r, index, threads);
    if (!s) s = set_precision(r, precision);
    const char *how = getenv("EQ_AUTOTUNE");
    if (!s) s = device_autotune(r, how && *how ? how : "off", NULL, NULL, log);
    if (s) device_close(r);
    else *d = r;
    return s;
}

Status device_open_counting(Device **d, Dtype act)
{
    Device *r = calloc(1, sizeof *r);
    CHECK(r);
    *r = (Device){.kind = &device_count, .act = act};
    *d = r;
    return r->kind->open(r, 0, 0);
}

void device_close(Device *d)
{
    if (!d) return;
    choices_close(d);
    d->kind->close(d);
    free(d->held);
    free(d);
}

/* ---- memory ------------------------------------------------------------------------------ */

static void hold(Device *d, void *p, size_t bytes)
{
    if (d->n_held == d->cap_held) {
        d->cap_held = d->cap_held ? 2 * d->cap_held : 32;
        d->held = realloc(d->held, (size_t)d->cap_held * sizeof *d->held);
        CHECK(d->held);
    }
    d->held[d->n_held++] = (struct Held){p, bytes};
    d->bytes += bytes;
    if (d->bytes > d->peak) d->peak = d->bytes;
}

size_t device_bytes(const Device *d) { return d->bytes; }
size_t device_peak(const Device *d) { return d->peak; }
void device_peak_restart(Device *d) { d->peak = d->bytes; }

Status device_alloc(Device *d, void **p, size_t bytes, const char *what)
{
    *p = NULL;
    Status s = d->kind->alloc(p, bytes);
    if (!s) hold(d, *p, bytes);
    if (s != ERR_SPACE) return s;
    size_t total, left = d->kind->free_bytes ? d->kind->free_bytes(&total) : 0;
    if (!d->kind->free_bytes)
        return FAIL(s, "no memory for %s: %.1f MiB needed", what, (double)bytes / 1048576);
    d->fit = (double)left / (double)bytes;
    return FAIL(s, "no memory for %s: %.1f MiB needed, %.1f of %.1f MiB free on %s", what,
                (double)bytes / 1048576, (double)left / 1048576, (double)total / 1048576, d->text);
}

void device_release(Device *d, void *p)
{
    if (!p) return;
    int i = d->n_held;
    while (i-- > 0 && d->held[i].p != p) continue;
    CHECK(i >= 0);
    d->bytes -= d->held[i].bytes;
    d->held[i] = d->held[--d->n_held];
    d->kind->release(p);
}

Status device_write(Device *d, void *to, const void *host, size_t bytes)
{
    return d->kind->write(d, to, host, bytes);
}

Status device_read(Device *d, void *host, const void *from, size_t bytes)
{
    return d->kind->read(d, host, from, bytes);
}

Status device_copy(Device *d, void *to, const void *from, size_t bytes)
{
    return d->kind->copy(d, to, from, bytes);
}

Status device_run(Device *d, const Tensor *node) { return d->kind->run(d, node); }

void device_gradients(Device *d, bool wanted)
{
    if (d->kind->gradients) d->kind->gradients(d, wanted);
}

Status device_sync(Device *d) { return d->kind->sync(d); }
Stream *device_stream(Device *d) { return d->stream; }

/* ---- feeds ------------------------------------------------------------------------------ */

Status device_feed_new(Feed **f, Device *d, size_t most_bytes)
{
    Status s = OK;
    if (d->kind->feed_new) {
        s = d->kind->feed_new(f, most_bytes);
    } else {
        *f = malloc(sizeof **f);
        CHECK(*f);
    }
    if (*f) (*f)->device = d;
    return s;
}

void device_feed_free(Feed *f)
{
    if (!f) return;
    if (f->device->kind->feed_free) f->device->kind->feed_free(f);
    else free(f);
}

Status device_feed(Feed *f, void *to, const void *host, size_t bytes)
{
    const DeviceTable *kind = f->device->kind;
    return kind->feed ? kind->feed(f, to, host, bytes) : kind->write(f->device, to, host, bytes);
}

/* ---- work aside ------------------------------------------------------------------------- */

Status device_aside_begin(Device *d)
{
    return d->kind->aside_begin ? d->kind->aside_begin(d) : OK;
}

Status device_aside_end(Device *d) { return d->kind->aside_end ? d->kind->aside_end(d) : OK; }
Status device_aside_wait(Device *d) { return d->kind->aside_wait ? d->kind->aside_wait(d) : OK; }

/* ---- recordings ------------------------------------------------------------------------- */

bool device_can_record(const Device *d) { return d->kind->record_begin != NULL; }
Status device_record_begin(Device *d) { return d->kind->record_begin(d); }
Status device_record_end(Device *d, Recording **r) { return d->kind->record_end(d, r); }
Status device_replay(Device *d, const Recording *r) { return d->kind->replay(d, r); }

void device_recording_free(Device *d, Recording *r)
{
    if (r) d->kind->recording_free(r);
}

/* ---- what it is ------------------------------------------------------------------------- */

Status device_mark(Device *d, int number) { return d->kind->mark(d, number); }
Status device_marks_ms(Device *d, float *ms, int n) { return d->kind->marks_ms(d, ms, n); }
bool device_is_gpu(const Device *d) { return d->kind != &device_cpu && d->kind != &device_count; }
bool device_fuses(const Device *d) { return d->kind->fuses; }
Dtype device_act(const Device *d) { return d->act; }
const char *device_text(const Device *d) { return d->text; }

const char *device_bits(const Device *d)
{
    const char *kind = strstr(d->text, ", "); /* behind "cuda:0" */
    return device_is_gpu(d) && kind ? kind + 2 : d->text;
}

Graph *device_graph(const Device *d)
{
    Graph *g = graph_new();
    g->act = d->act;
    return g;
}

Status device_memory_advice(Status s, const Device *d, const char *batch_setting, int batch,
                            const char *recompute)
{
    char message[768], or_recompute[96] = "";
    int fits = (int)(batch * d->fit); /* activations grow with the batch */
    if (s != ERR_SPACE) return s;
    snprintf(message, sizeof message, "%s", status_message());
    if (recompute) snprintf(or_recompute, sizeof or_recompute, " or %s = 1", recompute);
    if (fits >= 1 && fits < batch)
        return FAIL(s, "%s; %s = %d%s would fit", message, batch_setting, fits, or_recompute);
    if (batch > 1)
        return FAIL(s, "%s; lower %s (it is %d)%s", message, batch_setting, batch, or_recompute);
    return FAIL(s, "%s; %s = 1 is too much: smaller films%s", message, batch_setting, or_recompute);
}

int device_gpus(void)
{
#if EQ_CUDA
    const char *why;
    return cuda_device_count(&why);
#else
    return 0;
#endif
}

void device_list_gpus(Text *out)
{
    const char *why = "not built";
    int n = 0;
#if EQ_CUDA
    n = cuda_device_count(&why);
    for (int i = 0; i < n; i++) cuda_device_line(out, i);
    char libraries[96];
    const char *missing;
    if (n) cuda_library_versions(libraries, &missing);
    const char *between = n && *libraries && *missing ? "; " : "";
    if (n) text_add(out, "libraries: %s%s%s\n", libraries, between, missing);
#endif
    if (!n) text_add(out, "CUDA: %s\n", why);
}
