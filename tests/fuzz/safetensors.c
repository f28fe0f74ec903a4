/* safetensors.c - fuzzed: files of tensors and indices of shards, opened and read whole.
 * First byte of an input: 0 a file, 1 an index (of two good shards); the rest its content. */
#include "weights/safetensors.h"
#include "fuzz/fuzz.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char fuzz_name[] = "safetensors";
static char file[2][128]; /* by kind */

static void add(unsigned char kind, const char *text, size_t data)
{
    unsigned char all[2048] = {kind};
    size_t n = strlen(text), at = 1;
    CHECK(n + data + 16 < sizeof all);
    for (int i = 0; !kind && i < 8; i++) all[at++] = (unsigned char)(n >> 8 * i);
    memcpy(all + at, text, n);
    for (size_t i = 0; i < data; i++) all[at + n + i] = (unsigned char)(i * 37);
    fuzz_add(all, at + n + data);
}

void fuzz_seeds(const char *folder)
{
    static const char shard[] = "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    for (int i = 0; i < 2; i++) {
        char path[128], bytes[128] = {0};
        int n = snprintf(bytes + 8, sizeof bytes - 8, shard, i ? "b" : "a");
        bytes[0] = (char)n;
        snprintf(path, sizeof path, "%s/%d.safetensors", folder, i);
        fuzz_put(path, bytes, (size_t)n + 12);
    }
    snprintf(file[0], sizeof file[0], "%s/f.safetensors", folder);
    snprintf(file[1], sizeof file[1], "%s/f.safetensors.index.json", folder);
    add(0, "{}      ", 0);
    add(0, "{\"e\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0);
    add(0, "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}", 24);
    add(0,
        "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"I64\",\"shape\":[],\"data_"
        "offsets\":["
        "0,8]},\"a.weight\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[8,12]},"
        "\"h\":{\"dtype\":\"F16\",\"shape\":[3,0],\"data_offsets\":[12,12]},\"d\":{\"dtype\":"
        "\"F64\","
        "\"shape\":[2],\"data_offsets\":[12,28]}}   ",
        28);
    add(0,
        "{\"x\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]},\"y\":{\"dtype\":\"I32\","
        "\"shape\":[1,1,1],\"data_offsets\":[2,6]},\"z\":{\"dtype\":\"F16\",\"shape\":[2],"
        "\"data_offsets\":[6,10]}}",
        10);
    add(1,
        "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"0.safetensors\",\"b\":\"1."
        "safetensors\"}}",
        0);
}

/* The length that the header's text has: up to the last closing brace. */
void fuzz_repair(unsigned char *data, size_t size)
{
    if (size < 11 || data[0] % 2) return;
    size_t end = size;
    while (end > 9 && data[end - 1] != '}') end--;
    for (int i = 0; i < 8; i++) data[1 + i] = (unsigned char)((end - 9) >> 8 * i);
}

/* Every tensor whole, and a part of it: sizes that a header made up would go out of bounds. */
static Status use(const SafeFile *f)
{
    for (int i = 0; i < f->n; i++) {
        const SafeTensor *t = &f->tensor[i];
        if (st_find(f, t->name) != t) CHECK(!strcmp(st_find(f, t->name)->name, t->name));
        float *v = malloc(t->count * sizeof *v + 1);
        int32_t *whole = malloc(t->count * sizeof *whole + 1);
        CHECK(v && whole);
        Status s =
            safe_dtype_kind(t->dtype) == 'i' ? st_read_i32(f, t, whole) : st_read_f32(f, t, v);
        if (!s && safe_dtype_kind(t->dtype) == 'f' && t->count > 1)
            s = st_read_f32_part(f, t, t->count / 2, t->count - t->count / 2, v);
        free(v);
        free(whole);
        if (s) return s;
    }
    return OK;
}

Status fuzz_one(const unsigned char *data, size_t size)
{
    SafeFile f;
    if (!size) return OK;
    const char *path = file[data[0] % 2];
    fuzz_put(path, data + 1, size - 1);
    Status s = st_open(&f, path);
    if (s) {
        CHECK(!f.path && !f.n);
        return s;
    }
    s = use(&f);
    st_close(&f);
    return s;
}
