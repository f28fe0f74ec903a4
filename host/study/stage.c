/* stage.c - records of stages; see stage.h. */
#include "study/stage.h"
#include "base/signal.h"
#include "stats/evaluation.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_RECORD_BYTES = 64 << 20, NAMED_CHANGES = 4 };
enum { SHORTEST_PAUSE = 10000, LONGEST_PAUSE = 500000 }; /* microseconds between two looks */

/* ---- hashes --------------------------------------------------------------------------- */

static Status hash_folder(Hash *h, const char *folder, const char *below)
{
    DirList list = {0};
    Status s = dir_list(&list, folder);
    for (int i = 0; i < list.n && !s; i++) {
        char text[HASH_TEXT], *full = path_join(folder, list.name[i]);
        char *name = *below ? path_join(below, list.name[i]) : strdup(list.name[i]);
        CHECK(name);
        if (dir_exists(full)) {
            s = hash_folder(h, full, name);
        } else if (!(s = hash_file(text, full))) {
            hash_add(h, name, strlen(name) + 1);
            hash_add(h, text, sizeof text);
        }
        free(name);
        free(full);
    }
    dir_list_free(&list);
    return s;
}

Status hash_path(char hash[HASH_TEXT], const char *path)
{
    if (!dir_exists(path)) return hash_file(hash, path);
    Hash *h = hash_new();
    Status s = hash_folder(h, path, "");
    hash_end(h, hash);
    return s;
}

/* ---- settings ------------------------------------------------------------------------- */

typedef void SettingVisitor(void *to, const char *name, const char *value);

/* Every setting of a section but its paths, as "section.key" and text. */
static void visit_section(const Config *c, const char *section, SettingVisitor *visit, void *to)
{
    Text t = {0};
    char *rest = NULL;
    config_section_text(c, section, &t);
    for (char *line = strtok_r(t.s, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *equals = strstr(line, " =");
        CHECK(equals);
        Text name = {0};
        text_add(&name, "%s.%.*s", section, (int)(equals - line), line);
        const char *value = equals + 2;
        visit(to, name.s, value + (*value == ' '));
        free(name.s);
    }
    free(t.s);
}

static void put(void *to, const char *name, const char *value)
{
    CHECK(!json_object_set_new(to, name, json_string(value)));
}

void stage_setting(Stage *s, const Config *c, const char *names)
{
    char *list = strdup(names), *rest = NULL;
    CHECK(list);
    for (char *word = strtok_r(list, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *dot = strchr(word, '.');
        if (!dot) {
            visit_section(c, word, put, s->inputs);
            continue;
        }
        json_t *all = json_object();
        char *section = strndup(word, (size_t)(dot - word));
        CHECK(all && section);
        visit_section(c, section, put, all);
        json_t *value = json_object_get(all, word);
        CHECK(value);
        CHECK(!json_object_set(s->inputs, word, value));
        json_decref(all);
        free(section);
    }
    free(list);
}

/* Differences of two objects of texts, all or the first few. */
static int tell_changes(Text *t, const json_t *now, const json_t *was, int most)
{
    int n = 0;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)now, name, value)
    {
        const json_t *old = json_object_get(was, name);
        if (old && json_equal(value, old)) continue;
        if (n++ >= most) continue;
        text_add(t, "%s%s = %.80s, was %.80s", n > 1 ? "; " : "", name, json_string_value(value),
                 old ? json_string_value(old) : "not there");
    }
    json_object_foreach((json_t *)(uintptr_t)was, name, value)
    {
        if (json_object_get(now, name)) continue;
        if (n++ < most) text_add(t, "%s%s is gone", n > 1 ? "; " : "", name);
    }
    if (n > most) text_add(t, "; and %d more", n - most);
    return n;
}

int settings_difference(Text *t, const Config *now, const Config *was)
{
    /* How ranks share work, not what comes of it. */
    static const char *const free_to_change[] = {"parallel.zero", "parallel.bucket_mb",
                                                 "parallel.timeout_s"};
    json_t *a = json_object(), *b = json_object();
    CHECK(a && b);
#define VISIT_BOTH(section, Type, TABLE, meaning)                                                  \
    visit_section(now, #section, put, a);                                                          \
    visit_section(was, #section, put, b);
    CONFIG_SECTIONS(VISIT_BOTH)
#undef VISIT_BOTH
    for (size_t i = 0; i < sizeof free_to_change / sizeof *free_to_change; i++) {
        json_object_del(a, free_to_change[i]);
        json_object_del(b, free_to_change[i]);
    }
    int n = tell_changes(t, a, b, NAMED_CHANGES);
    json_decref(a);
    json_decref(b);
    return n;
}

/* ---- the record ----------------------------------------------------------------------- */

void stage_new(Stage *s, const char *name, const char *folder)
{
    *s = (Stage){.name = strdup(name), .folder = strdup(folder), .inputs = json_object()};
    s->record = path_join(folder, "stage.json");
    CHECK(s->name && s->folder && s->inputs);
}

void stage_free(Stage *s)
{
    free(s->name);
    free(s->folder);
    free(s->record);
    json_decref(s->inputs);
    json_decref(s->outputs);
    *s = (Stage){0};
}

static bool first(const Stage *s) { return comm_rank(s->comm) == 0; }

void stage_text(Stage *s, const char *name, const char *value) { put(s->inputs, name, value); }

Status stage_input(Stage *s, const char *name, const char *path)
{
    char hash[HASH_TEXT] = "none";
    Status found = *path && first(s) ? hash_path(hash, path) : OK;
    TRY(comm_agree(s->comm, name, found));
    TRY(comm_host_broadcast(s->comm, name, hash, sizeof hash, 0));
    put(s->inputs, name, hash);
    return OK;
}

void stage_upstream(Stage *s, const Stage *up, const char *output)
{
    const char *name;
    json_t *value;
    CHECK(up->done);
    json_object_foreach(up->outputs, name, value)
    {
        Text t = {0};
        if (output && strcmp(output, name)) continue;
        text_add(&t, "%s/%s", up->name, name);
        put(s->inputs, t.s, json_string_value(value));
        free(t.s);
    }
}

void stage_identity(const Stage *s, char hash[HASH_TEXT])
{
    char *text = json_dumps(s->inputs, JSON_SORT_KEYS | JSON_COMPACT);
    CHECK(text);
    hash_bytes(hash, text, strlen(text));
    free(text);
}

static Status write_record(const Stage *s)
{
    json_t *j = json_pack("{s:s, s:s, s:b, s:O, s:O?}", "stage", s->name, "program", EQ_VERSION,
                          "done", s->done, "inputs", s->inputs, "outputs", s->outputs);
    CHECK(j);
    Status status = json_write(j, s->record);
    json_decref(j);
    return status;
}

static Status check_inputs(const Stage *s, const json_t *record)
{
    Text t = {0};
    const char *program = json_string_value(json_object_get(record, "program"));
    if (!program || strcmp(program, EQ_VERSION))
        return FAIL(ERR_USAGE,
                    "%s: made by version %s, this is " EQ_VERSION "; expected another run folder",
                    s->record, program ? program : "(none)");
    if (!tell_changes(&t, s->inputs, json_object_get(record, "inputs"), NAMED_CHANGES)) return OK;
    Status status =
        FAIL(ERR_USAGE, "%s: made from other inputs: %s; expected the same, or another run folder",
             s->record, t.s);
    free(t.s);
    return status;
}

static Status check_outputs(const Stage *s)
{
    const char *name;
    json_t *value;
    json_object_foreach(s->outputs, name, value)
    {
        char hash[HASH_TEXT] = "", *path = path_join(s->folder, name);
        Status status = OK;
        if (!file_exists(path)) {
            status = FAIL(ERR_INPUT,
                          "%s: is gone, expected what stage %s made; remove %s to make it again",
                          path, s->name, s->folder);
        } else if (!(status = hash_path(hash, path)) && strcmp(hash, json_string_value(value))) {
            status = FAIL(ERR_INPUT,
                          "%s: has changed since stage %s made it; remove %s to make it again",
                          path, s->name, s->folder);
        }
        free(path);
        TRY(status);
    }
    return OK;
}

static bool all_texts(const json_t *object)
{
    const char *name;
    json_t *value;
    if (!json_is_object(object)) return false;
    json_object_foreach((json_t *)(uintptr_t)object, name,
                        value) if (!json_is_string(value)) return false;
    return true;
}

/* The record as it stands: *j is the caller's. */
static Status read_record(json_t **j, const Stage *s)
{
    char *data = NULL;
    size_t size;
    json_error_t error;
    TRY(file_read(&data, &size, s->record, MOST_RECORD_BYTES));
    *j = json_loadb(data, size, JSON_REJECT_DUPLICATES, &error);
    free(data);
    if (!*j)
        return FAIL(ERR_INPUT, "%s:%d: %s, expected the record of a stage", s->record, error.line,
                    error.text);
    bool whole =
        !json_is_true(json_object_get(*j, "done")) || all_texts(json_object_get(*j, "outputs"));
    if (whole && all_texts(json_object_get(*j, "inputs"))) return OK;
    json_decref(*j);
    return FAIL(ERR_INPUT, "%s: holds no inputs or outputs, expected the record of a stage",
                s->record);
}

/* Sets done and outputs from a record. */
static Status take_outputs(Stage *s, const json_t *j, bool checked)
{
    if (!json_is_true(json_object_get(j, "done"))) return OK;
    json_decref(s->outputs);
    s->outputs = json_incref(json_object_get(j, "outputs"));
    if (checked) TRY(check_outputs(s));
    s->done = true;
    return OK;
}

/* Gives all ranks the text of the first; heap. */
static Status share_text(char **text, const Stage *s)
{
    uint64_t size = *text ? strlen(*text) + 1 : 0;
    TRY(comm_host_broadcast(s->comm, s->name, &size, sizeof size, 0));
    if (!first(s)) *text = malloc(size);
    CHECK(*text);
    return comm_host_broadcast(s->comm, s->name, *text, size, 0);
}

/* What the first rank came to, on all of them. */
static Status share(Stage *s, Status mine)
{
    TRY(comm_agree(s->comm, s->name, mine));
    if (comm_size(s->comm) == 1) return OK;
    json_t *j =
        json_pack("{s:b, s:O, s:O?}", "done", s->done, "inputs", s->inputs, "outputs", s->outputs);
    char *text = first(s) ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    Status status = share_text(&text, s);
    if (status || first(s)) goto done;
    j = json_loads(text, 0, NULL);
    CHECK(j);
    json_object_update(s->inputs, json_object_get(j, "inputs"));
    status = take_outputs(s, j, false);
    json_decref(j);
done:
    free(text);
    return status;
}

static Status begin(Stage *s)
{
    json_t *j;
    if (!file_exists(s->record)) {
        TRY(dir_make(s->folder));
        return write_record(s);
    }
    TRY(read_record(&j, s));
    Status status = check_inputs(s, j);
    if (!status) status = take_outputs(s, j, true);
    json_decref(j);
    return status;
}

static Status end(Stage *s, const char *const *output, int n)
{
    s->outputs = json_object();
    CHECK(s->outputs);
    for (int i = 0; i < n; i++) {
        char hash[HASH_TEXT], *path = path_join(s->folder, output[i]);
        Status status = hash_path(hash, path);
        free(path);
        TRY(status);
        put(s->outputs, output[i], hash);
    }
    s->done = true;
    return write_record(s);
}

Status stage_begin(Stage *s)
{
    TRY(share(s, first(s) ? begin(s) : OK));
    s->begun = true;
    s->found = s->done;
    return OK;
}

Status stage_end(Stage *s, const char *const *output, int n)
{
    CHECK(!s->done && !s->outputs);
    return share(s, first(s) ? end(s, output, n) : OK);
}

Status stage_read(Stage *s, bool checked)
{
    json_t *j;
    if (!file_exists(s->record)) return OK;
    TRY(read_record(&j, s));
    Status status = take_outputs(s, j, checked);
    json_decref(j);
    return status;
}

static Status need(Stage *s, bool checked)
{
    TRY(stage_read(s, checked));
    if (s->done) return OK;
    return FAIL(ERR_INPUT, "%s: %s, expected the stage %s to be complete: it comes first",
                s->record, file_exists(s->record) ? "says that it is not" : "is not there",
                s->name);
}

Status stage_need(Stage *s, bool checked)
{
    if (s->done) return OK;
    return share(s, first(s) ? need(s, checked) : OK);
}

Status stage_wait(Stage *s)
{
    for (useconds_t pause = SHORTEST_PAUSE; !s->done; usleep(pause)) {
        TRY(signal_check());
        TRY(stage_read(s, false));
        if (pause < LONGEST_PAUSE) pause += pause / 4;
    }
    return OK;
}
