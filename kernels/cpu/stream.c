/* stream.c - the CPU's stream: work runs at once; it only keeps what is made once. */
#include "cpu.h"
#include <stdlib.h>

Status cpu_stream_new(Stream **s)
{
    *s = calloc(1, sizeof **s);
    return *s ? OK : FAIL(ERR_SPACE, "no memory for a stream");
}

void cpu_stream_free(Stream *s)
{
    if (!s) return;
    dnnl_close(s->dnnl);
    free(s->scratch);
    free(s);
}

void *stream_scratch(Stream *s, size_t bytes)
{
    if (bytes > s->scratch_bytes) {
        free(s->scratch);
        s->scratch_bytes = (bytes + 63) / 64 * 64;
        s->scratch = aligned_alloc(64, s->scratch_bytes);
        if (!s->scratch) s->scratch_bytes = 0;
    }
    return s->scratch;
}
