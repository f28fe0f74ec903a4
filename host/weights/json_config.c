/* json_config.c - getters share one walk over "a value or a list of values". */
#include "weights/json_config.h"
#include "base/file.h"
#include "base/text.h"
#include "weights/json_text.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 1 << 20, CONFIG_DEPTH = 16, SHOWN = 100 };

Status json_config_open(JsonConfig *c, const char *path)
{
    *c = (JsonConfig){0};
    json_t *value;
    TRY(json_file_object(&value, path, MAX_CONFIG_BYTES, CONFIG_DEPTH));
    *c = (JsonConfig){.path = path_join("", path), .value = value, .left = json_copy(value)};
    CHECK(c->left);
    return OK;
}

void json_config_close(JsonConfig *c)
{
    free(c->path);
    json_decref(c->value);
    json_decref(c->left);
    *c = (JsonConfig){0};
}

bool json_config_has(const JsonConfig *c, const char *key)
{
    const json_t *v = json_object_get(c->value, key);
    return v && !json_is_null(v);
}

Status json_config_need(const JsonConfig *c, const char *key)
{
    return json_config_has(c, key)
               ? OK
               : FAIL(ERR_INPUT, "%s: %s: found nothing, expected a value", c->path, key);
}

/* The value as it stands in the file, cut to a length that an error can hold. */
static void show(char text[SHOWN], const json_t *v)
{
    char *all = json_text_dump(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
    snprintf(text, SHOWN, "%.90s%s", all, strlen(all) > 90 ? "..." : "");
    free(all);
}

/* at: place in the list, or -1 where the value is no list */
static Status wrong(const JsonConfig *c, const char *key, int at, const json_t *v,
                    const char *expected)
{
    char found[SHOWN], place[16] = "";
    show(found, v);
    if (at >= 0) snprintf(place, sizeof place, "[%d]", at);
    return FAIL(ERR_INPUT, "%s: %s%s: found %s, expected %s", c->path, key, place, found, expected);
}

/* One value into slot i of what `want` describes. */
typedef struct Want Want;
struct Want {
    Status (*take)(const Want *w, const JsonConfig *c, const char *key, int at, const json_t *v,
                   int i);
    void *out;
    double least, most;
    const char *const *name;
    int n_name;
};

static Status take_int(const Want *w, const JsonConfig *c, const char *key, int at, const json_t *v,
                       int i)
{
    char range[64];
    snprintf(range, sizeof range, "%.0f..%.0f", w->least, w->most);
    json_int_t whole = json_integer_value(v);
    if (!json_is_integer(v) || whole < (json_int_t)w->least || whole > (json_int_t)w->most)
        return wrong(c, key, at, v, range);
    ((int *)w->out)[i] = (int)whole;
    return OK;
}

static Status take_real(const Want *w, const JsonConfig *c, const char *key, int at,
                        const json_t *v, int i)
{
    char range[64];
    snprintf(range, sizeof range, "%g..%g", w->least, w->most);
    double real = json_number_value(v);
    if (!json_is_number(v) || !(real >= w->least && real <= w->most))
        return wrong(c, key, at, v, range);
    ((double *)w->out)[i] = real;
    return OK;
}

static Status take_choice(const Want *w, const JsonConfig *c, const char *key, int at,
                          const json_t *v, int i)
{
    const char *text = json_string_value(v);
    for (int k = 0; text && k < w->n_name; k++)
        if (!strcmp(text, w->name[k])) {
            ((int *)w->out)[i] = k;
            return OK;
        }
    enum { SAID = 4 }; /* of more than two more, only so many by name */
    Text names = {0};
    int n = w->n_name > SAID + 2 ? SAID : w->n_name;
    for (int k = 0; k < n; k++)
        text_add(&names, "%s%s", !k ? "" : k == w->n_name - 1 ? " or " : ", ", w->name[k]);
    if (n < w->n_name) text_add(&names, " or %d others", w->n_name - n);
    Status s = wrong(c, key, at, v, names.s);
    free(names.s);
    return s;
}

/* The value of key, marked as asked for; NULL where it is absent or null. */
static const json_t *ask(JsonConfig *c, const char *key)
{
    json_object_del(c->left, key);
    const json_t *v = json_object_get(c->value, key);
    return json_is_null(v) ? NULL : v;
}

static Status one(JsonConfig *c, const char *key, Want w)
{
    const json_t *v = ask(c, key);
    return v ? w.take(&w, c, key, -1, v, 0) : OK;
}

static Status many(int *n, int room, JsonConfig *c, const char *key, Want w)
{
    const json_t *v = ask(c, key);
    size_t found = json_array_size(v);
    if (!v) return OK;
    if (!json_is_array(v)) return wrong(c, key, -1, v, "a list");
    if (!found || found > (size_t)room)
        return FAIL(ERR_INPUT, "%s: %s: found a list of %zu, expected 1..%d values", c->path, key,
                    found, room);
    for (int i = 0; i < (int)found; i++)
        TRY(w.take(&w, c, key, i, json_array_get(v, (size_t)i), i));
    *n = (int)found;
    return OK;
}

Status json_config_int(int *v, JsonConfig *c, const char *key, int least, int most)
{
    return one(c, key, (Want){take_int, v, least, most, NULL, 0});
}

Status json_config_real(double *v, JsonConfig *c, const char *key, double least, double most)
{
    return one(c, key, (Want){take_real, v, least, most, NULL, 0});
}

Status json_config_bool(bool *v, JsonConfig *c, const char *key)
{
    const json_t *value = ask(c, key);
    if (value && !json_is_boolean(value)) return wrong(c, key, -1, value, "true or false");
    if (value) *v = json_is_true(value);
    return OK;
}

Status json_config_choice(int *v, JsonConfig *c, const char *key, const char *const *name,
                          int n_name)
{
    return one(c, key, (Want){take_choice, v, 0, 0, name, n_name});
}

Status json_config_ints(int *v, int *n, int room, JsonConfig *c, const char *key, int least,
                        int most)
{
    return many(n, room, c, key, (Want){take_int, v, least, most, NULL, 0});
}

Status json_config_reals(double *v, int *n, int room, JsonConfig *c, const char *key, double least,
                         double most)
{
    return many(n, room, c, key, (Want){take_real, v, least, most, NULL, 0});
}

Status json_config_choices(int *v, int *n, int room, JsonConfig *c, const char *key,
                           const char *const *name, int n_name)
{
    return many(n, room, c, key, (Want){take_choice, v, 0, 0, name, n_name});
}

Status json_config_each(int *v, int n, JsonConfig *c, const char *key, int least, int most)
{
    Want w = {take_int, v, least, most, NULL, 0};
    const json_t *value = ask(c, key);
    size_t found = json_array_size(value);
    if (json_is_array(value) && found != (size_t)n)
        return FAIL(ERR_INPUT, "%s: %s: found a list of %zu, expected one value or a list of %d",
                    c->path, key, found, n);
    for (int i = 0; i < n && value; i++)
        if (found) TRY(w.take(&w, c, key, i, json_array_get(value, (size_t)i), i));
        else TRY(w.take(&w, c, key, -1, value, i));
    return OK;
}

/* 1 and 1.0 are the same to whoever writes a config */
static bool equal(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b)) return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

Status json_config_fixed(JsonConfig *c, const JsonFixed *row, int n)
{
    for (int i = 0; i < n; i++) {
        const json_t *v = json_object_get(c->value, row[i].key);
        json_object_del(c->left, row[i].key);
        if (!v) continue;
        json_t *only = json_loads(row[i].json, JSON_DECODE_ANY, NULL);
        CHECK(only);
        bool same = equal(v, only) || (json_is_null(v) && json_is_false(only));
        json_decref(only);
        if (!same) return wrong(c, row[i].key, -1, v, row[i].json);
    }
    return OK;
}

static bool listed(const char *key, const char *const *name, int n)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(key, name[i])) return true;
    return false;
}

Status json_config_nulls(const JsonConfig *c, const char *const *may, int n)
{
    const char *key;
    json_t *v;
    json_object_foreach(c->value, key, v)
    {
        bool asked = !json_object_get(c->left, key);
        if (json_is_null(v) && asked && !listed(key, may, n))
            return wrong(c, key, -1, v, "a value");
    }
    return OK;
}

static int kinds_of(const json_t *v)
{
    int all = JSON_WHOLES | JSON_NUMBERS | JSON_WORDS;
    for (size_t i = 0; i < json_array_size(v); i++) all &= kinds_of(json_array_get(v, i)) << 8;
    return json_is_array(v)                               ? all
           : json_is_boolean(v)                           ? JSON_BOOL
           : json_is_integer(v)                           ? JSON_WHOLE | JSON_NUMBER
           : json_is_object(v)                            ? JSON_TABLE
           : json_is_string(v) && !json_text_python(v) ? JSON_WORD
                                                          : JSON_NUMBER;
}

static Status check_kind(const JsonConfig *c, const json_t *v, const JsonIgnored *want)
{
    static const struct {
        JsonKind kind;
        const char *name;
    } known[] = {{JSON_BOOL, "true or false"},     {JSON_WHOLE, "a whole number"},
                 {JSON_NUMBER, "a number"},        {JSON_WORD, "a text"},
                 {JSON_TABLE, "an object"},        {JSON_WHOLES, "a list of whole numbers"},
                 {JSON_NUMBERS, "a list of numbers"}, {JSON_WORDS, "a list of texts"}};
    if (kinds_of(v) & want->kinds) return OK;
    Text names = {0};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (want->kinds & (int)known[i].kind)
            text_add(&names, "%s%s", names.n ? " or " : "", known[i].name);
    Status s = wrong(c, want->key, -1, v, names.s);
    free(names.s);
    return s;
}

Status json_config_finish(const JsonConfig *c, const JsonIgnored *ignored, int n)
{
    static const char ruled_out[] = "_use_default_values";
    const char *key;
    json_t *v = json_object_get(c->value, ruled_out);
    if (v && !json_is_null(v) && !(json_is_array(v) && !json_array_size(v)))
        return wrong(c, ruled_out, -1, v, "[]");
    json_object_foreach(c->left, key, v)
    {
        int i = 0;
        if (key[0] == '_' || json_is_null(v)) continue;
        while (i < n && strcmp(key, ignored[i].key)) i++;
        if (i == n) return wrong(c, key, -1, v, "no such key");
        TRY(check_kind(c, v, &ignored[i]));
    }
    return OK;
}
