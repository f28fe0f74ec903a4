/* choices.c - see choices.h. */
#include "exec/choices.h"
#include "base/file.h"
#include "exec/device_table.h"
#include "kernels_choice.h"
#include <stdlib.h>
#include <string.h>

/* *only: the library that $EQ_KERNELS names, or NULL. */
static Status check_settings(const char *how, const char **only)
{
    const char *named = getenv("EQ_KERNELS");
    *only = named && *named ? named : NULL;
    if (strcmp(how, "on") && strcmp(how, "off") && strcmp(how, "read"))
        return FAIL(ERR_USAGE, "autotune = %s: expected off, read or on", how);
    if (*only && strcmp(named, "cublaslt") && strcmp(named, "cudnn"))
        return FAIL(ERR_USAGE, "EQ_KERNELS = %s: expected cublaslt or cudnn", named);
    return OK;
}

#if EQ_CUDA
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>

enum { LARGEST_FILE = 16 << 20 };

struct DeviceChoices {
    char *cache, *record; /* owned: paths, or NULL */
    json_t *known;        /* owned: the cache's choices */
    json_t *recorded;     /* owned: the record's, of this process and of those before it */
    int n_kept;           /* used choices that are in the files */
    char made_on[320];
    Log *log; /* borrowed, or NULL */
};
typedef struct DeviceChoices Files;

/* ---- where and on what -------------------------------------------------------------------- */

static char *cache_folder(void)
{
    const char *own = getenv("EQ_CACHE"), *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (own && *own) return path_join(own, "");
    if (base && *base) return path_join(base, "equipoise");
    return home && *home ? path_join(home, ".cache/equipoise") : NULL;
}

static char *cache_path(const char *gpu)
{
    char name[96] = "kernels-", *folder = cache_folder(), *path = NULL;
    size_t n = strlen(name);
    for (; *gpu && n < 80; gpu++)
        name[n++] = isalnum((unsigned char)*gpu) ? (char)tolower((unsigned char)*gpu) : '-';
    snprintf(name + n, sizeof name - n, ".json");
    if (folder) path = path_join(folder, name);
    free(folder);
    return path;
}

static void describe(Files *f, char gpu[128])
{
    char versions[64], libraries[96];
    const char *missing;
    cuda_device_identity(gpu, versions);
    cuda_library_versions(libraries, &missing);
    snprintf(f->made_on, sizeof f->made_on, "equipoise " EQ_VERSION "; %s; %s; %s", gpu, versions,
             *libraries ? libraries : "no libraries");
    if (*missing && f->log) log_info(f->log, "autotune: our kernels instead: %s", missing);
}

/* ---- reading ------------------------------------------------------------------------------ */

static bool read_choice(Choice *c, const char *key, const json_t *value)
{
    const char *name = json_string_value(json_object_get(value, "kernel"));
    const json_t *us = json_object_get(value, "us");
    *c = (Choice){.us = json_is_number(us) ? (float)json_number_value(us) : 0};
    if (!name || strlen(name) >= sizeof c->name || strlen(key) >= sizeof c->key) return false;
    snprintf(c->key, sizeof c->key, "%s", key);
    snprintf(c->name, sizeof c->name, "%s", name);
    return true;
}

/* Adds the choices of a file's object, all or, with the first trouble as text, none; else NULL. */
static const char *take(Stream *s, json_t *choices)
{
    const char *key;
    json_t *value;
    Choice c;
    if (!json_is_object(choices)) return "has no choices";
    for (int adds = 0; adds < 2; adds++) {
        json_object_foreach(choices, key, value)
        {
            if (!read_choice(&c, key, value)) return "has a choice that is none";
            if (!cuda_choice_add(adds ? s : NULL, &c))
                return "names a kernel that this program does not use there";
        }
    }
    return NULL;
}

/* *choices, where not NULL: new reference to the file's object, NULL where it is not there or no
 * use. */
static void read_file(json_t **choices, const char *path, Device *d)
{
    const Files *f = d->choices;
    char *text = NULL;
    size_t size;
    if (!file_exists(path)) return;
    Status s = file_read(&text, &size, path, LARGEST_FILE);
    json_t *root = s ? NULL : json_loadb(text, size, 0, NULL);
    const char *on = json_string_value(json_object_get(root, "measured_on"));
    json_t *found = json_object_get(root, "choices");
    const char *trouble = s                        ? status_message()
                          : !on                    ? "is damaged"
                          : strcmp(on, f->made_on) ? "is of another machine or version"
                                                   : take(d->stream, found);
    if (!trouble && choices) *choices = json_incref(found);
    if (trouble && f->log)
        log_warn(f->log, "%s: %s%s%.160s: passed over, and measured again where autotune is on",
                 path, trouble, on ? ": " : "", on ? on : "");
    json_decref(root);
    free(text);
}

/* ---- writing ------------------------------------------------------------------------------ */

static Status write_file(const char *path, const Files *f, json_t *choices)
{
    json_t *root = json_pack("{s:s,s:O}", "measured_on", f->made_on, "choices", choices);
    char *text = json_dumps(root, JSON_INDENT(1) | JSON_SORT_KEYS | JSON_REAL_PRECISION(6));
    CHECK(text);
    Status s = file_write(path, text, strlen(text));
    free(text);
    json_decref(root);
    return s;
}

static void put(json_t *choices, const Choice *c)
{
    json_object_set_new(choices, c->key,
                        json_pack("{s:s,s:f}", "kernel", c->name, "us", (double)c->us));
}

Status device_keep_choices(Device *d)
{
    Files *f = d->choices;
    Choice c;
    int n = 0;
    if (!f) return OK;
    const char *trouble = cuda_choice_trouble(d->stream);
    if (trouble && f->log) log_warn(f->log, "autotune: %s", trouble);
    for (; cuda_choice_used(d->stream, n, &c); n++) {
        put(f->recorded, &c);
        if (c.us > 0 && !json_object_get(f->known, c.key)) put(f->known, &c);
    }
    Status s = OK;
    if (n != f->n_kept && f->record) s = write_file(f->record, f, f->recorded);
    if (n != f->n_kept && f->cache && write_file(f->cache, f, f->known)) {
        if (f->log) log_warn(f->log, "autotune: not remembered: %s", status_message());
        free(f->cache);
        f->cache = NULL;
    }
    f->n_kept = n;
    return s;
}

/* ---- benches ------------------------------------------------------------------------------ */

void device_force_kernels(Device *d, const char *only)
{
    if (d->kind == &device_cuda) cuda_choose(d->stream, CHOOSE_OURS, only);
}

static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += n)
        if ((at == list || at[-1] == ' ') && (!at[n] || at[n] == ' ')) return true;
    return false;
}

void device_kernels_used(Device *d, Text *names)
{
    Choice c;
    for (int i = 0; d->kind == &device_cuda && cuda_choice_used(d->stream, i, &c); i++)
        if (!names->s || !has_word(names->s, c.name)) text_add(names, "%s%s", i ? " " : "", c.name);
}

/* ---- the door ----------------------------------------------------------------------------- */

void choices_close(Device *d)
{
    Files *f = d->choices;
    if (!f) return;
    json_decref(f->known);
    json_decref(f->recorded);
    free(f->cache);
    free(f->record);
    free(f);
    d->choices = NULL;
}

/* Records of a run's other processes: kernels*.json. */
static void read_others(Device *d, const char *folder, const char *own)
{
    DirList list;
    if (dir_list(&list, folder)) return; /* not there yet */
    for (int i = 0; i < list.n; i++) {
        const char *name = list.name[i], *end = strrchr(name, '.');
        if (strncmp(name, "kernels", 7) || !end || strcmp(end, ".json") || !strcmp(name, own))
            continue;
        char *path = path_join(folder, name);
        read_file(NULL, path, d);
        free(path);
    }
    dir_list_free(&list);
}

static void update(json_t *choices, json_t *found)
{
    if (found) json_object_update(choices, found);
    json_decref(found);
}

static void read_files(Device *d, const char *folder, const char *record)
{
    Files *f = d->choices;
    char gpu[128];
    json_t *known = NULL, *recorded = NULL;
    describe(f, gpu);
    f->cache = cache_path(gpu);
    if (folder) f->record = path_join(folder, record);
    if (folder) read_file(&recorded, f->record, d);
    if (folder) read_others(d, folder, record);
    if (f->cache) read_file(&known, f->cache, d);
    update(f->known, known);
    update(f->recorded, recorded);
}

Status device_autotune(Device *d, const char *how, const char *folder, const char *record, Log *log)
{
    const char *only;
    TRY(check_settings(how, &only));
    if (d->kind != &device_cuda) return OK;
    bool on = !strcmp(how, "on"), off = !strcmp(how, "off");
    choices_close(d);
    cuda_choose(d->stream, off ? CHOOSE_OURS : on ? CHOOSE_FASTEST : CHOOSE_KNOWN, only);
    if (off && !only) return OK;
    d->choices = calloc(1, sizeof *d->choices);
    CHECK(d->choices);
    *d->choices = (Files){.known = json_object(), .recorded = json_object(), .log = log};
    if (!off && !only) read_files(d, folder, record); /* what is forced is nobody's choice */
    if (!on) { /* the cache is read, and left as it is */
        free(d->choices->cache);
        d->choices->cache = NULL;
    }
    return OK;
}
#else
Status device_autotune(Device *d, const char *how, const char *folder, const char *record, Log *log)
{
    const char *only;
    (void)d;
    (void)folder;
    (void)record;
    (void)log;
    return check_settings(how, &only);
}
Status device_keep_choices(Device *d)
{
    (void)d;
    return OK;
}
void choices_close(Device *d) { (void)d; }
void device_force_kernels(Device *d, const char *only)
{
    (void)d;
    (void)only;
}
void device_kernels_used(Device *d, Text *names)
{
    (void)d;
    (void)names;
}
#endif
