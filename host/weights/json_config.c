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
    char *all =
        json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(9));
    snprintf(text, SHOWN, "%.90s%s", all ? all : "?", all && strlen(all) > 90 ? "..." : "");
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
    Text names = {0};
    for (int k = 0; k < w->n_name; k++)
        text_add(&names, "%s%s", k ? k == w->n_name - 1 ? " or " : ", " : "", w->name[k]);
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
    if (!v) return OK;
    if (!json_is_array(v)) {
        TRY(w.take(&w, c, key, -1, v, 0));
        *n = 1;
        return OK;
    }
    if (json_array_size(v) > (size_t)room)
        return FAIL(ERR_INPUT, "%s: %s: found %zu values, expected at most %d", c->path, key,
                    json_array_size(v), room);
    for (int i = 0; i < (int)json_array_size(v); i++)
        TRY(w.take(&w, c, key, i, json_array_get(v, (size_t)i), i));
    *n = (int)json_array_size(v);
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

Status json_config_finish(const JsonConfig *c, const char *const *ignored, int n)
{
    const char *key;
    json_t *v;
    json_object_foreach(c->left, key, v)
    {
        bool known = key[0] == '_' || json_is_null(v) || listed(key, ignored, n);
        if (!known) return wrong(c, key, -1, v, "no such key");
    }
    return OK;
}
