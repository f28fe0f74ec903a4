/* checkpoint.c - save, find, verify, load. */
#include "train/checkpoint.h"
#include "weights/safetensors.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 1 << 18, KEEP = 2 };
static const char STATE[] = "state.safetensors", MANIFEST[] = "MANIFEST.json";

/* ---- writing -------------------------------------------------------------------------- */

/* Where the parts of blocks go: on rank 0 to a file, until that fails; elsewhere nowhere. */
typedef struct {
    SafeWriter writer;
    bool writes;
    Status failed;
    Device *device;
    float *buffer; /* owned: [CHUNK] */
} Sink;

static Status write_part(Sink *k, const float *part, size_t count)
{
    for (size_t at = 0; at < count; at += CHUNK) {
        size_t m = count - at < CHUNK ? count - at : CHUNK;
        if (part) TRY(device_read(k->device, k->buffer, part + at, m * sizeof *part));
        else memset(k->buffer, 0, m * sizeof *part);
        TRY(st_write_f32(&k->writer, k->buffer, m));
    }
    return OK;
}

/* A failure to write is kept: other ranks are not to wait for this one. */
static Status take_part(void *to, const float *part, size_t count)
{
    Sink *k = to;
    if (k->writes && !k->failed) k->failed = write_part(k, part, count);
    return OK;
}

static void sink_open(Sink *k, const char *path, const CheckpointBlock *block, int n,
                      const char *info)
{
    SafeSpec spec[32];
    CHECK(n <= 32);
    for (int i = 0; i < n; i++)
        spec[i] = (SafeSpec){
            .name = block[i].name, .dtype = SAFE_F32, .ndim = 1, .dim = {(int64_t)block[i].count}};
    k->failed = st_write_begin(&k->writer, path, n, spec, 1, &(SafeMeta){"info", info});
    k->buffer = malloc(CHUNK * sizeof *k->buffer);
    CHECK(k->buffer);
}

/* Fails at once where ranks cannot gather; else k->failed tells. */
static Status visit_blocks(Sink *k, const CheckpointBlock *block, int n)
{
    for (int i = 0; i < n; i++) {
        const CheckpointBlock *b = &block[i];
        if (b->keeper) TRY(optimizer_visit(b->keeper, b->store, b->data, b->rest, take_part, k));
        else TRY(take_part(k, b->data, b->count));
    }
    return OK;
}

static Status write_state(const char *path, Device *d, bool writes, const CheckpointBlock *block,
                          int n, const char *info)
{
    Sink k = {.writes = writes, .device = d};
    if (writes) sink_open(&k, path, block, n, info);
    Status s = visit_blocks(&k, block, n);
    if (!s) s = k.failed;
    if (writes && s) st_write_abandon(&k.writer);
    else if (writes) s = st_write_commit(&k.writer);
    free(k.buffer);
    return s;
}

static Status write_manifest(const char *path, const char *state)
{
    char hash[HASH_TEXT];
    uint64_t size;
    OutFile o;
    TRY(hash_file(hash, state));
    TRY(file_size(&size, state));
    TRY(out_open(&o, path));
    Status s =
        out_printf(&o, "{\n  \"file\": \"%s\",\n  \"bytes\": %llu,\n  \"sha256\": \"%s\"\n}\n",
                   STATE, (unsigned long long)size, hash);
    if (!s) return out_commit(&o);
    out_abandon(&o);
    return s;
}

static char *step_dir(const char *dir, long step)
{
    char name[64];
    snprintf(name, sizeof name, "step-%09ld", step);
    return path_join(dir, name);
}

/* ---- reading -------------------------------------------------------------------------- */

static bool verifies(const char *dir)
{
    char *manifest = path_join(dir, MANIFEST), *state = path_join(dir, STATE), hash[HASH_TEXT];
    json_t *j = json_load_file(manifest, JSON_REJECT_DUPLICATES, NULL);
    const char *want = json_string_value(json_object_get(j, "sha256"));
    bool good = want && !hash_file(hash, state) && !strcmp(hash, want);
    json_decref(j);
    free(manifest);
    free(state);
    return good;
}

static long step_of(const char *name)
{
    char *end;
    if (strncmp(name, "step-", 5)) return -1;
    long step = strtol(name + 5, &end, 10);
    return end == name + 5 || *end ? -1 : step;
}

/* The newest directory that verifies: heap, or NULL. Names sort by step. */
static char *newest(const char *dir, long *step, Log *log)
{
    DirList list;
    char *found = NULL;
    *step = -1;
    if (!dir_exists(dir) || dir_list(&list, dir)) return NULL;
    for (int i = list.n - 1; i >= 0 && !found; i--) {
        if (step_of(list.name[i]) < 0) continue;
        char *path = path_join(dir, list.name[i]);
        if (verifies(path)) {
            *step = step_of(list.name[i]);
            found = path;
        } else {
            log_warn(log, "%s: damaged checkpoint, going back to the one before", path);
            free(path);
        }
    }
    dir_list_free(&list);
    return found;
}

static void remove_older(const char *dir, Log *log)
{
    DirList list;
    int kept = 0;
    if (dir_list(&list, dir)) return;
    for (int i = list.n - 1; i >= 0; i--) {
        char *path = path_join(dir, list.name[i]);
        bool temp = file_is_temp(list.name[i]);
        if ((temp || (step_of(list.name[i]) >= 0 && kept++ >= KEEP)) && dir_remove(path))
            log_warn(log, "%s", status_message());
        free(path);
    }
    dir_list_free(&list);
}

/* Files are rank 0's; the others help to gather the blocks. A failure leaves nothing behind. */
static Status save(const char *dir, const char *final, const char *temp, bool writes, Device *d,
                   const CheckpointBlock *block, int n, const char *info, Log *log)
{
    char *state = path_join(temp, STATE), *manifest = path_join(temp, MANIFEST);
    Failure failure;
    Status made = OK, s;
    if (writes) made = dir_remove(final);
    if (writes && !made) made = dir_make(temp);
    s = write_state(state, d, writes && !made, block, n, info);
    if (made) s = made;
    if (writes && !s) s = write_manifest(manifest, state);
    if (writes && !s) s = dir_rename(temp, final);
    if (writes && !s) remove_older(dir, log);
    if (writes && s) {
        status_keep(&failure, s);
        dir_remove(temp);
        status_restore(&failure);
    }
    free(state);
    free(manifest);
    return s;
}

Status checkpoint_save(const char *dir, long step, Device *d, Comm *comm,
                       const CheckpointBlock *block, int n, const char *info, Log *log)
{
    char *final = step_dir(dir, step), *temp = malloc(strlen(final) + 32);
    CHECK(temp);
    sprintf(temp, "%s.tmp-%ld", final, (long)getpid());
    bool first = comm_rank(comm) == 0;
    int there = first && verifies(final); /* the same step again, after a resume */
    Status s = comm_host_broadcast(comm, "the checkpoint's state", &there, sizeof there, 0);
    if (!s && !there)
        s = comm_agree(comm, "a checkpoint",
                       save(dir, final, temp, first, d, block, n, info, log));
    free(temp);
    free(final);
    return s;
}

static Status read_info(char **info, const char *state)
{
    SafeFile f;
    TRY(st_open(&f, state));
    const char *text = st_metadata(&f, "info");
    *info = strdup(text ? text : "{}");
    CHECK(*info);
    st_close(&f);
    return OK;
}

static Status find(Checkpoint *c, const char *dir, Log *log)
{
    c->folder = newest(dir, &c->step, log);
    if (!c->folder) return OK;
    char *state = path_join(c->folder, STATE);
    Status s = read_info(&c->info, state);
    free(state);
    return s;
}

/* Heap text of rank 0. */
static Status share_text(Comm *comm, char **text)
{
    size_t n = *text ? strlen(*text) + 1 : 0;
    TRY(comm_host_broadcast(comm, "a checkpoint's name", &n, sizeof n, 0));
    if (!*text) *text = malloc(n);
    CHECK(*text);
    return comm_host_broadcast(comm, "a checkpoint's name", *text, n, 0);
}

Status checkpoint_find(Checkpoint *c, const char *dir, Comm *comm, Log *log)
{
    Status s = OK;
    *c = (Checkpoint){.step = -1};
    if (comm_rank(comm) == 0) s = find(c, dir, log);
    TRY_OR(failed, s, comm_agree(comm, "checkpoints", s));
    TRY_OR(failed, s,
           comm_host_broadcast(comm, "a checkpoint's step", &c->step, sizeof c->step, 0));
    if (c->step < 0) return OK;
    TRY_OR(failed, s, share_text(comm, &c->folder));
    TRY_OR(failed, s, share_text(comm, &c->info));
failed:
    if (s) checkpoint_free(c);
    return s;
}

void checkpoint_free(Checkpoint *c)
{
    free(c->folder);
    free(c->info);
    *c = (Checkpoint){0};
}

/* Floats from..from+count-1 of the block. */
static Status read_part(float *buffer, const SafeFile *f, const SafeTensor *t, Device *d,
                        float *data, size_t from, size_t count)
{
    for (size_t at = 0; at < count; at += CHUNK) {
        size_t m = count - at < CHUNK ? count - at : CHUNK;
        TRY(st_read_f32_part(f, t, from + at, m, buffer));
        TRY(device_write(d, data + at, buffer, m * sizeof *buffer));
    }
    return OK;
}

static Status read_block(float *buffer, const SafeFile *f, Device *d, const CheckpointBlock *b)
{
    const SafeTensor *t;
    TRY(st_expect(&t, f, b->name, 1, &(int64_t){(int64_t)b->count}));
    if (!b->keeper) return read_part(buffer, f, t, d, b->data, 0, b->count);
    for (int i = 0; i < b->keeper->n_piece; i++) {
        Piece p = b->keeper->piece[i];
        if (p.store == b->store)
            TRY(read_part(buffer, f, t, d, b->data + p.state, p.at, p.count));
    }
    return OK;
}

static Status load(const Checkpoint *c, Device *d, const CheckpointBlock *block, int n)
{
    SafeFile f = {0};
    char *state = path_join(c->folder, STATE);
    float *buffer = malloc(CHUNK * sizeof *buffer);
    CHECK(buffer);
    Status s;
    TRY_OR(done, s, st_open(&f, state));
    for (int i = 0; i < n; i++) TRY_OR(done, s, read_block(buffer, &f, d, &block[i]));
done:
    st_close(&f);
    free(buffer);
    free(state);
    return s;
}

Status checkpoint_load(const Checkpoint *c, Device *d, Comm *comm, const CheckpointBlock *block,
                       int n)
{
    return comm_agree(comm, "the checkpoint", load(c, d, block, n));
}

void checkpoint_remove_all(const char *dir) { dir_remove(dir); }
