/* evaluation_json.c - results as JSON. */
#include "base/file.h"
#include "stats/evaluation.h"
#include <math.h>
#include <stdlib.h>

static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static json_t *interval(Interval i)
{
    return isfinite(i.lo) ? json_pack("[f, f]", i.lo, i.hi) : json_null();
}

static void put(json_t *object, const char *key, json_t *value)
{
    CHECK(!json_object_set_new(object, key, value));
}

static void put_int(json_t *object, const char *key, int64_t value)
{
    put(object, key, json_integer(value));
}

static json_t *resampling(const Resampling *how)
{
    json_t *j = json_object();
    put_int(j, "replicates", how->replicates);
    put_int(j, "permutations", how->permutations);
    put_int(j, "seed", how->seed);
    return j;
}

json_t *evaluation_json(const Evaluation *e)
{
    json_t *j = json_object(), *confusion = json_object(), *metrics = json_object();
    put_int(j, "n", e->n);
    put_int(j, "positives", e->n_positives);
    put_int(j, "patients", e->n_patients);
    put(j, "threshold", number(e->threshold));
    put_int(confusion, "tp", e->tally.tp);
    put_int(confusion, "fp", e->tally.fp);
    put_int(confusion, "tn", e->tally.tn);
    put_int(confusion, "fn", e->tally.fn);
    put(j, "confusion", confusion);
    put(j, "resampling", resampling(&e->how));
    for (Metric m = 0; m < METRIC_COUNT; m++) {
        json_t *one = json_object();
        IntervalKind beside = metric_info(m)->beside;
        put(one, "value", number(e->metric[m].value));
        put(one, "ci", interval(e->metric[m].ci));
        if (beside == INTERVAL_CLOPPER_PEARSON)
            put(one, "ci_clopper_pearson", interval(e->metric[m].beside));
        if (beside == INTERVAL_DELONG) put(one, "ci_delong", interval(e->metric[m].beside));
        put(metrics, metric_info(m)->name, one);
    }
    put(j, "metrics", metrics);
    return j;
}

json_t *comparison_json(const Comparison *c)
{
    json_t *j = json_object();
    for (Metric m = 0; m < METRIC_COUNT; m++) {
        const Contrast *d = &c->metric[m];
        json_t *one = json_object();
        put(one, "difference", number(d->difference));
        put(one, "ci", interval(d->ci));
        if (metric_info(m)->beside == INTERVAL_DELONG) put(one, "ci_delong", interval(d->beside));
        put(one, "p", number(d->p));
        put(one, "p_holm", number(d->p_holm));
        put(one, "test", json_string(test_name(d->test)));
        if (d->test_beside != TEST_NONE) {
            char key[32];
            snprintf(key, sizeof key, "p_%s", test_name(d->test_beside));
            put(one, key, number(d->p_beside));
        }
        put(j, metric_info(m)->name, one);
    }
    return j;
}

Status json_write(const json_t *j, const char *path)
{
    OutFile o = {0};
    Status s;
    char *text = json_dumps(j, JSON_SORT_KEYS | JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    CHECK(text);
    TRY_OR(done, s, out_open(&o, path));
    TRY_OR(done, s, out_printf(&o, "%s\n", text));
    s = out_commit(&o);
done:
    out_abandon(&o);
    free(text);
    return s;
}
