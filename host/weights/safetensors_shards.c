/* safetensors_shards.c - weights in several shards: the index, and one SafeFile over all shards.
 *
 *   NAME.safetensors.index.json   {"metadata": {...}, "weight_map": {tensor: file, ...}}
 *
 * metadata.total_size is left unread: published ones count shared tensors differently, and what
 * the tensors need is known from the shards themselves.
 */
#include "weights/json_text.h"
#include "weights/safetensors.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_INDEX = 1 << 26, INDEX_DEPTH = 4, MAX_SHARDS = 512 };

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* diffusers and transformers put the variant behind "index", diffusers lately before
 * "safetensors". */
bool st_is_index(const char *path)
{
    return ends_with(path, ".safetensors.index.json") ||
           ends_with(path, ".safetensors.index.fp16.json");
}

/* A name from the index becomes part of a path, so it must be the plain name of a shard. */
static bool plain_name(const char *name)
{
    return *name && *name != '.' && !strchr(name, '/') && !strchr(name, '\\') &&
           strlen(name) < 256 && ends_with(name, ".safetensors");
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct files that the map names, sorted; *list is the caller's to free. */
static Status shard_names(const char ***list, int *n, const char *path, json_t *map)
{
    const char *tensor;
    json_t *file;
    int all = 0;
    const char **name = calloc(json_object_size(map) + 1, sizeof *name);
    CHECK(name);
    *list = name;
    *n = 0;
    json_object_foreach(map, tensor, file)
    {
        const char *text = json_string_value(file);
        if (!text || !plain_name(text))
            return FAIL(ERR_INPUT,
                        "%s: weight_map: tensor \"%.200s\": found %s%.80s%s, expected the plain "
                        "name of a .safetensors file beside it",
                        path, tensor, text ? "\"" : "", text ? text : "no text", text ? "\"" : "");
        name[all++] = text;
    }
    qsort(name, (size_t)all, sizeof *name, by_text);
    for (int i = 0; i < all; i++)
        if (!*n || strcmp(name[*n - 1], name[i])) name[(*n)++] = name[i];
    if (*n > MAX_SHARDS)
        return FAIL(ERR_INPUT, "%s: weight_map: found %d shards, expected at most %d", path, *n,
                    MAX_SHARDS);
    return *n ? OK : FAIL(ERR_INPUT, "%s: weight_map: found no tensor, expected some", path);
}

static Status open_shard(SafeFile *shard, const char *index, const char *name)
{
    const char *slash = strrchr(index, '/');
    char *folder = strndup(index, slash ? (size_t)(slash - index) + 1 : 0);
    CHECK(folder);
    char *path = path_join(folder, name);
    Status s = file_exists(path)
                   ? st_open(shard, path)
                   : FAIL(ERR_INPUT, "%s: found no such file, expected it as %s says", path, index);
    free(folder);
    free(path);
    return s;
}

/* Each tensor of the shard must be there by the map, and only there. */
static Status take_tensors(SafeFile *f, json_t *map, const SafeFile *shard, const char *name)
{
    for (int i = 0; i < shard->n; i++) {
        const SafeTensor *t = &shard->tensor[i];
        const char *place = json_string_value(json_object_get(map, t->name));
        if (!place || strcmp(place, name))
            return FAIL(ERR_INPUT, "%s: tensor \"%.200s\": found in this shard, expected %s%.80s",
                        shard->path, t->name, place ? "in " : "it in the index too",
                        place ? place : "");
        f->tensor[f->n++] = *t;
    }
    return OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(SafeTensor *const *)a)->name, (*(SafeTensor *const *)b)->name);
}

/* Taken are only entries of the map, each once: a count that agrees says that none is missing. */
static Status check_entries(SafeFile *f, json_t *map)
{
    const char *tensor;
    json_t *file;
    f->by_name = arena_alloc(&f->arena, ((size_t)f->n + 1) * sizeof *f->by_name);
    for (int i = 0; i < f->n; i++) f->by_name[i] = &f->tensor[i];
    qsort(f->by_name, (size_t)f->n, sizeof *f->by_name, by_name);
    if ((size_t)f->n == json_object_size(map)) return OK;
    json_object_foreach(map, tensor, file)
    {
        if (!st_find(f, tensor))
            return FAIL(ERR_INPUT,
                        "%s: weight_map: tensor \"%.200s\": found none in %.80s, "
                        "expected it there",
                        f->path, tensor, json_string_value(file));
    }
    return OK;
}

static Status open_all(SafeFile *f, json_t *index)
{
    json_t *map = json_object_get(index, "weight_map");
    const char **name = NULL;
    int n;
    Status s;
    if (!json_is_object(map))
        return FAIL(ERR_INPUT, "%s: found no weight_map, expected {tensor: file}", f->path);
    TRY_OR(done, s, shard_names(&name, &n, f->path, map));
    f->shard = calloc((size_t)n, sizeof *f->shard);
    f->tensor = arena_alloc(&f->arena, (json_object_size(map) + 1) * sizeof *f->tensor);
    CHECK(f->shard);
    for (int i = 0; i < n; i++) {
        TRY_OR(done, s, open_shard(&f->shard[i], f->path, name[i]));
        f->n_shard++;
        TRY_OR(done, s, take_tensors(f, map, &f->shard[i], name[i]));
    }
    TRY_OR(done, s, check_entries(f, map));
    f->meta = f->shard[0].meta; /* {"format": "pt"}, the same in all */
    f->n_meta = f->shard[0].n_meta;
done:
    free(name);
    return s;
}

Status st_open_shards(SafeFile *f, const char *path)
{
    SafeFile r = {.fd = -1};
    json_t *index;
    *f = (SafeFile){0};
    TRY(json_file_object(&index, path, MAX_INDEX, INDEX_DEPTH));
    r.path = path_join("", path);
    Status s = open_all(&r, index);
    json_decref(index);
    if (s) st_close(&r);
    else *f = r;
    return s;
}
