/* config.c - rows made from the tables of settings.h, and everything that walks over them. */
#include "config/config.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef enum { KIND_INT, KIND_REAL, KIND_TEXT, KIND_PATH } Kind;

typedef struct {
    const char *name;
    Kind kind;
    size_t at;                  /* offset in Config */
    double value, least, most;  /* numbers: default and limits */
    const char *text, *choices; /* texts: default and "a|b|c", or "|" */
    const char *unit, *meaning;
} Setting;

typedef struct {
    const char *name, *meaning;
    const Setting *row;
    int n;
} Section;

#define ROW_INT(S, key, value, least, most, unit, meaning)                                         \
    {#key, KIND_INT, offsetof(Config, S.key), value, least, most, NULL, NULL, unit, meaning},
#define ROW_REAL(S, key, value, least, most, unit, meaning)                                        \
    {#key, KIND_REAL, offsetof(Config, S.key), value, least, most, NULL, NULL, unit, meaning},
#define ROW_TEXT(S, key, text, choices, meaning)                                                   \
    {#key, KIND_TEXT, offsetof(Config, S.key), 0, 0, 0, text, choices, "", meaning},
#define ROW_PATH(S, key, text, meaning)                                                            \
    {#key, KIND_PATH, offsetof(Config, S.key), 0, 0, 0, text, "", "path", meaning},
#define ROWS(section, Type, TABLE, meaning)                                                        \
    static const Setting section##_rows[] = {TABLE(section, ROW_INT, ROW_REAL, ROW_TEXT, ROW_PATH)};
CONFIG_SECTIONS(ROWS)

static const Section sections[] = {
#define SECTION(section, Type, TABLE, meaning)                                                     \
    {#section, meaning, section##_rows, sizeof section##_rows / sizeof *section##_rows},
    CONFIG_SECTIONS(SECTION)};
enum { N_SECTION = sizeof sections / sizeof *sections, LONGEST_LINE = 198, NUMBER_TEXT = 32 };

static const Section *section_find(const char *name, size_t n)
{
    for (int i = 0; i < N_SECTION; i++)
        if (strlen(sections[i].name) == n && !memcmp(sections[i].name, name, n))
            return &sections[i];
    return NULL;
}

static const Setting *setting_find(const Section *section, const char *name)
{
    for (int i = 0; i < section->n; i++)
        if (!strcmp(section->row[i].name, name)) return &section->row[i];
    return NULL;
}

Status config_need_section(const char *section, const char *origin)
{
    if (section_find(section, strlen(section))) return OK;
    const char *name[N_SECTION];
    for (int i = 0; i < N_SECTION; i++) name[i] = sections[i].name;
    const char *near = text_nearest(section, name, N_SECTION);
    if (near)
        return FAIL(ERR_USAGE, "%s: there is no section [%s]; did you mean [%s]?", origin, section,
                    near);
    Text all = {0};
    for (int i = 0; i < N_SECTION; i++) text_add(&all, " %s", name[i]);
    Status s = FAIL(ERR_USAGE, "%s: there is no section [%s]; there are%s", origin, section, all.s);
    free(all.s);
    return s;
}

/* The same name in another section is the likeliest slip, then a name spelt alike. */
static Status unknown_setting(const Section *section, const char *key, const char *origin)
{
    for (int i = 0; i < N_SECTION; i++)
        if (setting_find(&sections[i], key))
            return FAIL(ERR_USAGE, "%s: there is no setting %s.%s; did you mean %s.%s?", origin,
                        section->name, key, sections[i].name, key);
    const char *name[64];
    CHECK(section->n <= 64);
    for (int i = 0; i < section->n; i++) name[i] = section->row[i].name;
    const char *near = text_nearest(key, name, section->n);
    if (near)
        return FAIL(ERR_USAGE, "%s: there is no setting %s.%s; did you mean %s.%s?", origin,
                    section->name, key, section->name, near);
    return FAIL(ERR_USAGE, "%s: there is no setting %s.%s; see --help", origin, section->name, key);
}

/* Shortest text that reads back as the same number. */
static void number_text(char text[NUMBER_TEXT], double v)
{
    double back = 0;
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, NUMBER_TEXT, "%.*g", digits, v);
        if (text_to_double(&back, text) && back == v) return;
    }
    CHECK(!"a number that cannot be written");
}

static Status set_number(Config *c, const Section *section, const Setting *row, const char *value,
                         const char *origin)
{
    bool whole = row->kind == KIND_INT;
    long i = 0;
    double v = 0;
    if (!(whole ? text_to_long(&i, value) : text_to_double(&v, value)))
        return FAIL(ERR_USAGE, "%s: %s.%s = \"%s\" is no %snumber", origin, section->name,
                    row->name, value, whole ? "whole " : "");
    if (whole) v = (double)i;
    if (!(v >= row->least && v <= row->most))
        return FAIL(ERR_USAGE, "%s: %s.%s = %s is outside %.10g..%.10g%s%s", origin, section->name,
                    row->name, value, row->least, row->most, *row->unit ? " " : "", row->unit);
    char *at = (char *)c + row->at;
    if (whole) *(int *)(void *)at = (int)i;
    else *(double *)(void *)at = v;
    return OK;
}

static bool among(const char *choices, const char *value)
{
    size_t n = strlen(value);
    for (const char *p = choices; n; p++) {
        size_t m = strcspn(p, "|");
        if (m == n && !memcmp(p, value, n)) return true;
        p += m;
        if (!*p) break;
    }
    return false;
}

/* Why a text could not be read back from config.ini, or NULL. */
static const char *unwritable(const char *value)
{
    for (const char *p = value; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) return "holds a control character";
        if ((*p == ';' || *p == '#') && (p == value || p[-1] == ' '))
            return "holds a blank and then ; or #, which starts a comment in an INI file";
    }
    return NULL;
}

/* The number of the first empty part of several, or 0. */
static int empty_part(const char *value)
{
    char **part;
    int n = text_parts(&part, value), empty = 0;
    for (int i = n; n > 1 && i > 0; i--)
        if (!*part[i - 1]) empty = i;
    free(part);
    return empty;
}

static Status check_choice(const Section *section, const Setting *row, const char *value,
                           const char *origin)
{
    bool list = !strcmp(row->choices, "|");
    int empty = list ? empty_part(value) : 0;
    if (empty)
        return FAIL(ERR_USAGE,
                    "%s: %s.%s = \"%s\": text %d is empty, expected one on each side of |", origin,
                    section->name, row->name, value, empty);
    if (!list && *row->choices && !among(row->choices, value))
        return FAIL(ERR_USAGE, "%s: %s.%s = \"%s\" is none of %s", origin, section->name, row->name,
                    value, row->choices);
    return OK;
}

static Status set_text(Config *c, const Section *section, const Setting *row, const char *value,
                       const char *origin)
{
    TRY(check_choice(section, row, value, origin));
    size_t odd = text_not_utf8(value);
    if (value[odd])
        return FAIL(ERR_USAGE, "%s: %s.%s: found 0x%02X as byte %zu, expected UTF-8", origin,
                    section->name, row->name, (unsigned char)value[odd], odd + 1);
    const char *why = unwritable(value);
    if (why)
        return FAIL(ERR_USAGE, "%s: %s.%s = \"%s\" %s", origin, section->name, row->name, value,
                    why);
    size_t n = strlen(value), most = LONGEST_LINE - strlen(row->name) - strlen(" = ");
    if (n > most)
        return FAIL(ERR_USAGE,
                    "%s: %s.%s has %zu characters, at most %zu fit a line of config.ini: %s",
                    origin, section->name, row->name, n, most, value);
    memcpy((char *)c + row->at, value, n + 1);
    return OK;
}

static Status set_path(Config *c, const Section *section, const Setting *row, const char *value,
                       const char *origin, const char *folder)
{
    if (!*value) return set_text(c, section, row, value, origin);
    char *from = realpath(folder, NULL);
    if (!from)
        return FAIL(ERR_USAGE, "%s: cannot find the folder %s: %s", origin, folder,
                    strerror(errno));
    while (!strncmp(value, "./", 2)) value += 2;
    char *path = path_join(from, value);
    Status s = set_text(c, section, row, path, origin);
    free(path);
    free(from);
    return s;
}

static char *trimmed(const char *value)
{
    value += strspn(value, " \t\r\n");
    size_t n = strlen(value);
    while (n && strchr(" \t\r\n", value[n - 1])) n--;
    char *copy = strndup(value, n);
    CHECK(copy);
    return copy;
}

Status config_set_from(Config *c, const char *section_name, const char *key, const char *value,
                       const char *origin, const char *folder)
{
    TRY(config_need_section(section_name, origin));
    const Section *section = section_find(section_name, strlen(section_name));
    const Setting *row = setting_find(section, key);
    if (!row) return unknown_setting(section, key, origin);
    char *v = trimmed(value);
    Status s = row->kind == KIND_TEXT   ? set_text(c, section, row, v, origin)
               : row->kind == KIND_PATH ? set_path(c, section, row, v, origin, folder)
                                        : set_number(c, section, row, v, origin);
    free(v);
    return s;
}

Status config_set(Config *c, const char *name, const char *value, const char *origin)
{
    const char *dot = strchr(name, '.');
    if (!dot)
        return FAIL(ERR_USAGE, "%s: \"%s\" names no setting, expected section.key", origin, name);
    char *section = strndup(name, (size_t)(dot - name));
    CHECK(section);
    Status s = config_set_from(c, section, dot + 1, value, origin, ".");
    free(section);
    return s;
}

Status config_assign(Config *c, const char *assignment, const char *origin)
{
    const char *equals = strchr(assignment, '=');
    if (!equals)
        return FAIL(ERR_USAGE, "%s: \"%s\" sets nothing, expected section.key=value", origin,
                    assignment);
    char *left = strndup(assignment, (size_t)(equals - assignment));
    CHECK(left);
    char *name = trimmed(left);
    Status s = config_set(c, name, equals + 1, origin);
    free(name);
    free(left);
    return s;
}

void config_default(Config *c)
{
    memset(c, 0,
           sizeof *c); /* also the bytes behind texts, so that equal settings are equal bytes */
    for (int i = 0; i < N_SECTION; i++)
        for (int k = 0; k < sections[i].n; k++) {
            const Setting *row = &sections[i].row[k];
            char *at = (char *)c + row->at;
            if (row->kind == KIND_INT) *(int *)(void *)at = (int)row->value;
            else if (row->kind == KIND_REAL) *(double *)(void *)at = row->value;
            else snprintf(at, CONFIG_TEXT, "%s", row->text);
        }
}

static void add_line(Text *t, const Config *c, const Setting *row)
{
    const char *at = (const char *)c + row->at;
    char number[NUMBER_TEXT];
    if (row->kind == KIND_INT) text_add(t, "%s = %d\n", row->name, *(const int *)(const void *)at);
    else if (row->kind == KIND_REAL) {
        number_text(number, *(const double *)(const void *)at);
        text_add(t, "%s = %s\n", row->name, number);
    } else text_add(t, "%s =%s%s\n", row->name, *at ? " " : "", at);
}

void config_section_text(const Config *c, const char *name, Text *t)
{
    const Section *section = section_find(name, strlen(name));
    CHECK(section);
    for (int k = 0; k < section->n; k++)
        if (section->row[k].kind != KIND_PATH) add_line(t, c, &section->row[k]);
}

/* "0..1", "a|b" or "" */
static void range_text(Text *t, const Setting *row)
{
    if (row->kind == KIND_TEXT) text_add(t, "%s", strcmp(row->choices, "|") ? row->choices : "");
    else if (row->kind == KIND_PATH) text_add(t, "path");
    else
        text_add(t, "%.10g..%.10g%s%s", row->least, row->most,
                 *row->unit && strcmp(row->unit, "0/1") ? " " : "",
                 strcmp(row->unit, "0/1") ? row->unit : "");
}

Status config_write(const Config *c, OutFile *to)
{
    Text t = {0};
    text_add(&t, "; every setting of this run; equipoise " EQ_VERSION "\n");
    for (int i = 0; i < N_SECTION; i++) {
        text_add(&t, "\n[%s]\n; %s\n", sections[i].name, sections[i].meaning);
        for (int k = 0; k < sections[i].n; k++) {
            text_add(&t, "; %s\n", sections[i].row[k].meaning);
            add_line(&t, c, &sections[i].row[k]);
        }
    }
    Status s = out_write(to, t.s, t.n);
    free(t.s);
    return s;
}

void config_help(FILE *to)
{
    enum { COLUMN = 35 };
    Config c;
    Text all = {0};
    config_default(&c);
    for (int i = 0; i < N_SECTION; i++) {
        text_add(&all, "%s[%s] %s\n", i ? "\n" : "", sections[i].name, sections[i].meaning);
        for (int k = 0; k < sections[i].n; k++) {
            const Setting *row = &sections[i].row[k];
            Text line = {0}, range = {0}, meaning = {0};
            add_line(&line, &c, row);
            line.s[line.n - 1] = 0; /* the line's end */
            range_text(&range, row);
            text_add(&meaning, "%s", row->meaning);
            if (range.n) text_add(&meaning, " (%s)", range.s);
            text_add_help(&all, line.s, COLUMN, meaning.s);
            free(line.s);
            free(range.s);
            free(meaning.s);
        }
    }
    fputs(all.s, to);
    free(all.s);
}
