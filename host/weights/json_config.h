/* json_config.h - config.json files of published models: typed, bounded, nothing overlooked.
 *
 * Reading: open, ask for each key, then json_config_finish(), which refuses keys that nobody asked
 * for, since an option that is silently ignored gives another model. Getters leave *v alone where
 * the key is absent or null, so that it holds the default. Failures name file and key:
 *   unet/config.json: block_out_channels[2]: found -3, expected 1..65536
 */
#ifndef JSON_CONFIG_H
#define JSON_CONFIG_H
#include "base/status.h"
#include <jansson.h>

typedef struct {
    char   *path;  /* owned */
    json_t *value; /* owned */
    json_t *left;  /* owned: what was not asked for yet */
} JsonConfig;      /* starts as {0} */

Status json_config_open(JsonConfig *c, const char *path);
void   json_config_close(JsonConfig *c);

bool   json_config_has(const JsonConfig *c, const char *key); /* there and not null */
Status json_config_need(const JsonConfig *c, const char *key);

Status json_config_int(int *v, JsonConfig *c, const char *key, int least, int most);
Status json_config_real(double *v, JsonConfig *c, const char *key, double least, double most);
Status json_config_bool(bool *v, JsonConfig *c, const char *key);
Status json_config_choice(int *v, JsonConfig *c, const char *key, const char *const *name,
                          int n_name);

/* Lists of 1 to `room` values. *n is left alone with v. */
Status json_config_ints(int *v, int *n, int room, JsonConfig *c, const char *key, int least,
                        int most);
Status json_config_reals(double *v, int *n, int room, JsonConfig *c, const char *key, double least,
                         double most);
Status json_config_choices(int *v, int *n, int room, JsonConfig *c, const char *key,
                           const char *const *name, int n_name);

/* A value for each of n: one for all of them, or a list of exactly n. */
Status json_config_each(int *v, int n, JsonConfig *c, const char *key, int least, int most);

/* Keys that must be absent or as given, because nothing else is supported:
 * {"resnet_time_scale_shift", "\"default\""}, {"dual_cross_attention", "false"}; a null in the place
 * of another value than false is refused too. */
typedef struct { const char *key, *json; } JsonFixed;
Status json_config_fixed(JsonConfig *c, const JsonFixed *row, int n);

/* After all getters: a key they asked for is null though it is none of `may`; to Python that is
 * another value than the default. */
Status json_config_nulls(const JsonConfig *c, const char *const *may, int n);

/* Keys without meaning for us must be of one of their kinds all the same; null always is, and so is
 * whatever begins with '_', but for the keys whose values diffusers passes over, if any are listed
 * (_use_default_values). Whole numbers and Python's infinities are numbers. */
typedef enum {
    JSON_BOOL = 1,
    JSON_WHOLE = 2,
    JSON_NUMBER = 4,
    JSON_WORD = 8,
    JSON_TABLE = 16,
    JSON_WHOLES = JSON_WHOLE << 8, /* lists */
    JSON_NUMBERS = JSON_NUMBER << 8,
    JSON_WORDS = JSON_WORD << 8
} JsonKind;
typedef struct { const char *key; int kinds; } JsonIgnored;

Status json_config_finish(const JsonConfig *c, const JsonIgnored *ignored, int n);
#endif
