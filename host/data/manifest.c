/* manifest.c - reading, checking, counting and writing the list of films. */
#include "data/manifest.h"
#include "base/csv.h"
#include <libgen.h>
#include <stdlib.h>
#include <string.h>

static const char *const split_names[SPLIT_COUNT] = {"train", "val", "test", "pool"};

const char *split_name(Split s)
{
    CHECK(s < SPLIT_COUNT);
    return split_names[s];
}

bool split_parse(Split *s, const char *name)
{
    for (int i = 0; i < SPLIT_COUNT; i++)
        if (!strcmp(name, split_names[i])) {
            *s = (Split)i;
            return true;
        }
    return false;
}

/* ---- making --------------------------------------------------------------------------- */

void manifest_init(Manifest *m, const char *path)
{
    char *copy = strdup(path);
    CHECK(copy);
    *m = (Manifest){.file = strdup(path), .folder = strdup(dirname(copy))};
    CHECK(m->file && m->folder);
    free(copy);
}

void manifest_add(Manifest *m, const ManifestRow *row)
{
    if (m->n == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 256;
        m->row = realloc(m->row, (size_t)m->cap * sizeof *m->row);
        CHECK(m->row);
    }
    ManifestRow *r = &m->row[m->n++];
    *r = *row;
    r->id = arena_strdup(&m->memory, row->id);
    r->path = arena_strdup(&m->memory, row->path);
    r->label_name = arena_strdup(&m->memory, row->label_name);
    r->patient = arena_strdup(&m->memory, row->patient);
    r->source = arena_strdup(&m->memory, row->source);
    if (!r->line) r->line = m->n + 1;
}

void manifest_free(Manifest *m)
{
    arena_free(&m->memory);
    free(m->file);
    free(m->folder);
    free(m->row);
    free(m->label);
    *m = (Manifest){0};
}

/* ---- checking ------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void make_class_table(Manifest *m)
{
    free(m->label);
    m->label = malloc((size_t)(m->n + 1) * sizeof *m->label);
    CHECK(m->label);
    for (int i = 0; i < m->n; i++) m->label[i] = m->row[i].label_name;
    qsort(m->label, (size_t)m->n, sizeof *m->label, by_text);
    m->n_label = 0;
    for (int i = 0; i < m->n; i++)
        if (!i || strcmp(m->label[i], m->label[m->n_label - 1]))
            m->label[m->n_label++] = m->label[i];
    for (int i = 0; i < m->n; i++) m->row[i].label = manifest_label(m, m->row[i].label_name);
}

/* Rows sorted by one of their texts, then by line: equal ones stand together. */
typedef struct {
    const char *key;
    const ManifestRow *row;
} Sorted;

static int by_key(const void *a, const void *b)
{
    const Sorted *x = a, *y = b;
    int order = strcmp(x->key, y->key);
    return order ? order : x->row->line - y->row->line;
}

typedef enum { KEY_ID, KEY_PATIENT, KEY_HASH } Key;

static Sorted *sorted_by(const Manifest *m, Key key)
{
    Sorted *s = malloc((size_t)(m->n + 1) * sizeof *s);
    CHECK(s);
    for (int i = 0; i < m->n; i++) {
        const ManifestRow *r = &m->row[i];
        s[i] = (Sorted){key == KEY_ID ? r->id : key == KEY_PATIENT ? r->patient : r->sha256, r};
    }
    qsort(s, (size_t)m->n, sizeof *s, by_key);
    return s;
}

static Status check_pair(const Manifest *m, Key key, const ManifestRow *a, const ManifestRow *b)
{
    if (key == KEY_ID)
        return FAIL(ERR_INPUT, "%s:%d: id \"%s\" is already in line %d, expected each once",
                    m->file, b->line, b->id, a->line);
    if (a->split == b->split) return OK;
    if (key == KEY_PATIENT)
        return FAIL(ERR_INPUT,
                    "%s:%d: patient \"%s\" is in %s, but in %s at line %d, expected each "
                    "patient in one split",
                    m->file, b->line, b->patient, split_name(b->split), split_name(a->split),
                    a->line);
    return FAIL(ERR_INPUT,
                "%s:%d: film \"%s\" is in %s, but the identical film \"%s\" is in %s at line "
                "%d, expected no film in two splits",
                m->file, b->line, b->id, split_name(b->split), a->id, split_name(a->split),
                a->line);
}

static Status check_key(const Manifest *m, Key key)
{
    Sorted *s = sorted_by(m, key);
    Status status = OK;
    for (int i = 1; i < m->n && !status; i++)
        if (!strcmp(s[i].key, s[i - 1].key)) status = check_pair(m, key, s[i - 1].row, s[i].row);
    free(s);
    return status;
}

static bool leads_outside(const char *path)
{
    if (path[0] == '/') return true;
    for (const char *c = path; *c; c = strchr(c, '/') ? strchr(c, '/') + 1 : "")
        if (!strncmp(c, "..", 2) && (!c[2] || c[2] == '/')) return true;
    return false;
}

static Status check_row(const Manifest *m, const ManifestRow *r)
{
    const char *empty = !*r->id           ? "id"
                        : !*r->path       ? "path"
                        : !*r->label_name ? "label"
                        : !*r->patient    ? "patient"
                                          : NULL;
    if (empty)
        return FAIL(ERR_INPUT, "%s:%d: %s is empty, expected a value", m->file, r->line, empty);
    if (leads_outside(r->path))
        return FAIL(ERR_INPUT, "%s:%d: path \"%s\" leads out of the folder, expected one inside",
                    m->file, r->line, r->path);
    if (strlen(r->sha256) != 64 || strspn(r->sha256, "0123456789abcdef") != 64)
        return FAIL(ERR_INPUT, "%s:%d: sha256 \"%s\", expected 64 hex digits", m->file, r->line,
                    r->sha256);
    if (r->width < 1 || r->height < 1)
        return FAIL(ERR_INPUT, "%s:%d: size %d x %d, expected at least 1 x 1", m->file, r->line,
                    r->width, r->height);
    return OK;
}

Status manifest_finish(Manifest *m)
{
    if (!m->n) return FAIL(ERR_INPUT, "%s: has no films, expected at least one row", m->file);
    for (int i = 0; i < m->n; i++) TRY(check_row(m, &m->row[i]));
    TRY(check_key(m, KEY_ID));
    TRY(check_key(m, KEY_PATIENT));
    TRY(check_key(m, KEY_HASH));
    make_class_table(m);
    return OK;
}

/* ---- files ---------------------------------------------------------------------------- */

static const char *const columns[] = {"id",     "path",  "label",  "patient", "split",
                                      "sha256", "width", "height", "source"};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

static Status read_size(int *out, const Csv *c, int row, int col)
{
    long v;
    if (!text_to_long(&v, csv_at(c, row, col)) || v < 1 || v > 1 << 20)
        return FAIL(ERR_INPUT, "%s:%d: %s \"%s\", expected a whole number of pixels", c->path,
                    c->line[row], c->name[col], csv_at(c, row, col));
    *out = (int)v;
    return OK;
}

static Status read_row(Manifest *m, const Csv *c, int row, const int col[N_COLUMNS])
{
    const char *cell[N_COLUMNS];
    for (int i = 0; i < N_COLUMNS; i++) cell[i] = csv_at(c, row, col[i]);
    ManifestRow r = {.id = cell[0],
                     .path = cell[1],
                     .label_name = cell[2],
                     .patient = cell[3],
                     .source = cell[8],
                     .line = c->line[row]};
    if (!split_parse(&r.split, cell[4]))
        return FAIL(ERR_INPUT, "%s:%d: split \"%s\", expected train, val, test or pool", c->path,
                    r.line, cell[4]);
    if (strlen(cell[5]) != 64)
        return FAIL(ERR_INPUT, "%s:%d: sha256 has %zu characters, expected 64 hex digits", c->path,
                    r.line, strlen(cell[5]));
    memcpy(r.sha256, cell[5], HASH_TEXT);
    TRY(read_size(&r.width, c, row, col[6]));
    TRY(read_size(&r.height, c, row, col[7]));
    manifest_add(m, &r);
    return OK;
}

Status manifest_read(Manifest *m, const char *path)
{
    Csv c = {0};
    int col[N_COLUMNS];
    Status s;
    *m = (Manifest){0};
    TRY(csv_read(&c, path));
    manifest_init(m, path);
    for (int i = 0; i < N_COLUMNS; i++) TRY_OR(done, s, csv_need(&col[i], &c, columns[i]));
    for (int i = 0; i < c.n_row; i++) TRY_OR(done, s, read_row(m, &c, i, col));
    TRY_OR(done, s, manifest_finish(m));
done:
    csv_free(&c);
    if (s) manifest_free(m);
    return s;
}

static Status write_row(OutFile *o, const ManifestRow *r)
{
    TRY(csv_write_field(o, r->id, false));
    TRY(csv_write_field(o, r->path, false));
    TRY(csv_write_field(o, r->label_name, false));
    TRY(csv_write_field(o, r->patient, false));
    TRY(out_printf(o, "%s,%s,%d,%d,", split_name(r->split), r->sha256, r->width, r->height));
    return csv_write_field(o, r->source, true);
}

Status manifest_write(const Manifest *m)
{
    OutFile o;
    Status s;
    TRY(out_open(&o, m->file));
    for (int i = 0; i < N_COLUMNS; i++)
        TRY_OR(done, s, csv_write_field(&o, columns[i], i == N_COLUMNS - 1));
    for (int i = 0; i < m->n; i++) TRY_OR(done, s, write_row(&o, &m->row[i]));
    TRY_OR(done, s, out_commit(&o));
done:
    out_abandon(&o);
    return s;
}

/* ---- asking --------------------------------------------------------------------------- */

int manifest_label(const Manifest *m, const char *name)
{
    const char **at =
        m->n_label ? bsearch(&name, m->label, (size_t)m->n_label, sizeof *m->label, by_text) : NULL;
    return at ? (int)(at - m->label) : -1;
}

char *manifest_path(const Manifest *m, const ManifestRow *r)
{
    return path_join(m->folder, r->path);
}

Count manifest_count(const Manifest *m, int label, Split split)
{
    Sorted *s = sorted_by(m, KEY_PATIENT);
    const char *last = NULL;
    Count c = {0};
    for (int i = 0; i < m->n; i++) {
        const ManifestRow *r = s[i].row;
        if ((label >= 0 && r->label != label) || (split != SPLIT_COUNT && r->split != split))
            continue;
        c.films++;
        c.patients += !last || strcmp(last, r->patient);
        last = r->patient;
    }
    free(s);
    return c;
}

static void table_row(Text *t, const Manifest *m, const char *name, int label)
{
    text_add(t, "%-20s", name);
    for (int s = 0; s <= SPLIT_COUNT; s++) {
        Count c = manifest_count(m, label, (Split)s);
        char cell[32];
        snprintf(cell, sizeof cell, "%d (%d)", c.films, c.patients);
        text_add(t, " %13s", cell);
    }
    text_add(t, "\n");
}

void manifest_table(Text *t, const Manifest *m)
{
    text_add(t, "%-20s", "films (patients)");
    for (int s = 0; s < SPLIT_COUNT; s++) text_add(t, " %13s", split_name((Split)s));
    text_add(t, " %13s\n", "all");
    for (int i = 0; i < m->n_label; i++) table_row(t, m, m->label[i], i);
    table_row(t, m, "all", -1);
}
