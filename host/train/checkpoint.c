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

static Status write_state(const char *path, Device *d, const CheckpointBlock *block, int n,
                          const char *info)
{
    SafeWriter w;
    SafeSpec spec[32];
    CHECK(n <= 32);
    for (int i = 0; i < n; i++)
        spec[i] = (SafeSpec){
            .name = block[i].name, .dtype = SAFE_F32, .ndim = 1, .dim = {(int64_t)block[i].count}};
    TRY(st_write_begin(&w, path, n, spec, 1, &(SafeMeta){"info", info}));
    float *buffer = malloc(CHUNK * sizeof *buffer);
    CHECK(buffer);
    Status s = OK;
    for (int i = 0; i < n && !s; i++)
        for (size_t at = 0; at < block[i].count && !s; at += CHUNK) {
            size_t m = block[i].count - at < CHUNK ? block[i].count - at : CHUNK;
            s = device_read(d, buffer, block[i].data + at, m * sizeof *buffer);
            if (!s) s = st_write_f32(&w, buffer, m);
        }
    free(buffer);
    if (s) st_write_abandon(&w);
    else s = st_write_commit(&w);
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
        bool temp = strstr(list.name[i], ".tmp-");
        if ((temp || (step_of(list.name[i]) >= 0 && kept++ >= KEEP)) && dir_remove(path))
            log_warn(log, "%s", status_message());
        free(path);
    }
    dir_list_free(&list);
}

Status checkpoint_save(const char *dir, long step, Device *d, const CheckpointBlock *block, int n,
                       const char *info, Log *log)
{
    char *final = step_dir(dir, step), *temp = malloc(strlen(final) + 32);
    CHECK(temp);
    sprintf(temp, "%s.tmp-%ld", final, (long)getpid());
    char *state = path_join(temp, STATE), *manifest = path_join(temp, MANIFEST);
    Status s = OK;
    if (verifies(final)) goto done; /* the same step again, after a resume */
    TRY_OR(failed, s, dir_remove(final));
    TRY_OR(failed, s, dir_make(temp));
    TRY_OR(failed, s, write_state(state, d, block, n, info));
    TRY_OR(failed, s, write_manifest(manifest, state));
    TRY_OR(failed, s, dir_rename(temp, final));
    remove_older(dir, log);
failed:
    if (s) {
        char message[1024];
        snprintf(message, sizeof message, "%s", status_message());
        dir_remove(temp);
        status_set(s, message);
    }
done:
    free(state);
    free(manifest);
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

Status checkpoint_find(Checkpoint *c, const char *dir, Log *log)
{
    Status s = OK;
    *c = (Checkpoint){0};
    c->folder = newest(dir, &c->step, log);
    if (!c->folder) return OK;
    char *state = path_join(c->folder, STATE);
    s = read_info(&c->info, state);
    free(state);
    if (s) checkpoint_free(c);
    return s;
}

void checkpoint_free(Checkpoint *c)
{
    free(c->folder);
    free(c->info);
    *c = (Checkpoint){0};
}

static Status read_block(float *buffer, const SafeFile *f, Device *d, const CheckpointBlock *b)
{
    const SafeTensor *t;
    TRY(st_expect(&t, f, b->name, 1, &(int64_t){(int64_t)b->count}));
    for (size_t at = 0; at < b->count; at += CHUNK) {
        size_t m = b->count - at < CHUNK ? b->count - at : CHUNK;
        TRY(st_read_f32_part(f, t, at, m, buffer));
        TRY(device_write(d, b->data + at, buffer, m * sizeof *buffer));
    }
    return OK;
}

Status checkpoint_load(const Checkpoint *c, Device *d, const CheckpointBlock *block, int n)
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

void checkpoint_remove_all(const char *dir) { dir_remove(dir); }
