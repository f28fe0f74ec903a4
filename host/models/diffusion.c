/* diffusion.c - noise schedules and DDIM coefficients. */
#include "models/diffusion.h"
#include "base/file.h"
#include "weights/json_text.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void accumulate(NoiseSchedule *s, const double *beta)
{
    double product = 1;
    for (int t = 0; t < s->n; t++) s->alpha_bar[t] = product *= 1 - beta[t];
}

void schedule_scaled_linear(NoiseSchedule *s, int n, double first, double last)
{
    static _Thread_local double beta[MAX_TIMESTEPS];
    s->n = n;
    for (int t = 0; t < n; t++) {
        double root = sqrt(first) + (sqrt(last) - sqrt(first)) * t / (n > 1 ? n - 1 : 1);
        beta[t] = root * root;
    }
    accumulate(s, beta);
}

bool spacing_parse(Spacing *out, const char *name)
{
    static const char *const names[] = {"leading", "trailing", "linspace"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, names[i])) {
            *out = (Spacing)i;
            return true;
        }
    return false;
}

double schedule_min_snr(const NoiseSchedule *s, int t, double gamma)
{
    if (gamma <= 0) return 1;
    double snr = s->alpha_bar[t] / (1 - s->alpha_bar[t]);
    return fmin(snr, gamma) / (s->v_prediction ? snr + 1 : snr);
}

Status schedule_timesteps(const NoiseSchedule *s, Spacing spacing, int steps, int *t)
{
    if (steps < 1 || steps > s->n)
        return FAIL(ERR_USAGE, "synthesis.steps: %d, expected 1..%d as the model was trained with",
                    steps, s->n);
    double n = s->n;
    for (int i = 0; i < steps; i++) {
        double at = spacing == SPACING_LEADING
                        ? (double)(steps - 1 - i) * (s->n / steps) + s->steps_offset
                    : spacing == SPACING_TRAILING ? rint(n - i * n / steps) - 1
                    : steps == 1                  ? 0
                                                  : rint((n - 1) * (steps - 1 - i) / (steps - 1));
        t[i] = (int)fmin(at, n - 1);
    }
    return OK;
}

int schedule_strength_steps(int steps, double strength)
{
    int run = (int)(steps * strength);
    return run < steps ? run : steps;
}

void schedule_ddim(const NoiseSchedule *s, int t, int steps, double eta, float coef[6])
{
    int to = t - s->n / steps;
    double ab = s->alpha_bar[t];
    double ab_to = to >= 0 ? s->alpha_bar[to] : s->set_alpha_to_one ? 1 : s->alpha_bar[0];
    double variance = (1 - ab_to) / (1 - ab) * (1 - ab / ab_to);
    double sigma = eta * sqrt(fmax(variance, 0));
    double value[6] = {
        sqrt(ab), sqrt(1 - ab), sqrt(ab_to), sqrt(fmax(1 - ab_to - sigma * sigma, 0)), sigma, 0};
    for (int i = 0; i < 6; i++) coef[i] = (float)value[i];
}

/* ---- scheduler_config.json --------------------------------------------------------------- */

static double number_or(const json_t *j, const char *key, double otherwise)
{
    json_t *v = json_object_get(j, key);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}

static const char *text_or(const json_t *j, const char *key, const char *otherwise)
{
    json_t *v = json_object_get(j, key);
    return json_is_string(v) ? json_string_value(v) : otherwise;
}

static Status betas(NoiseSchedule *s, const json_t *j, const char *path)
{
    const char *kind = text_or(j, "beta_schedule", "linear");
    double first = number_or(j, "beta_start", 1e-4), last = number_or(j, "beta_end", .02);
    if (!(first > 0 && first <= last && last < 1))
        return FAIL(ERR_INPUT, "%s: beta_start %g, beta_end %g, expected 0 < start <= end < 1",
                    path, first, last);
    if (!strcmp(kind, "scaled_linear")) {
        schedule_scaled_linear(s, s->n, first, last);
        return OK;
    }
    if (strcmp(kind, "linear"))
        return FAIL(ERR_INPUT, "%s: beta_schedule \"%s\", expected scaled_linear or linear", path,
                    kind);
    static _Thread_local double beta[MAX_TIMESTEPS];
    for (int t = 0; t < s->n; t++) beta[t] = first + (last - first) * t / (s->n > 1 ? s->n - 1 : 1);
    accumulate(s, beta);
    return OK;
}

/* What would change the arithmetic and is not here is refused, never ignored. */
static Status refuse_unknown(const json_t *j, const char *path)
{
    static const char *const off[] = {"clip_sample", "thresholding", "rescale_betas_zero_snr"};
    for (int i = 0; i < 3; i++)
        if (json_is_true(json_object_get(j, off[i])))
            return FAIL(ERR_INPUT, "%s: %s is true, expected false", path, off[i]);
    json_t *betas_given = json_object_get(j, "trained_betas");
    return betas_given && !json_is_null(betas_given)
               ? FAIL(ERR_INPUT, "%s: trained_betas is given, expected null", path)
               : OK;
}

static Status read_fields(NoiseSchedule *s, const json_t *j, const char *path)
{
    const char *prediction = text_or(j, "prediction_type", "epsilon");
    const char *spacing = text_or(j, "timestep_spacing", "leading");
    double n = number_or(j, "num_train_timesteps", 1000), offset = number_or(j, "steps_offset", 0);
    if (!(n >= 1 && n <= MAX_TIMESTEPS && n == floor(n)))
        return FAIL(ERR_INPUT, "%s: num_train_timesteps %g, expected a whole number in 1..%d", path,
                    n, MAX_TIMESTEPS);
    if (!(offset >= 0 && offset < n && offset == floor(offset)))
        return FAIL(ERR_INPUT, "%s: steps_offset %g, expected a whole number in 0..%g", path,
                    offset, n - 1);
    *s = (NoiseSchedule){.n = (int)n,
                         .steps_offset = (int)offset,
                         .set_alpha_to_one = !json_is_false(json_object_get(j, "set_alpha_to_one")),
                         .v_prediction = !strcmp(prediction, "v_prediction")};
    if (!s->v_prediction && strcmp(prediction, "epsilon"))
        return FAIL(ERR_INPUT, "%s: prediction_type \"%s\", expected epsilon or v_prediction", path,
                    prediction);
    if (!spacing_parse(&s->spacing, spacing))
        return FAIL(ERR_INPUT,
                    "%s: timestep_spacing \"%s\", expected leading, trailing or linspace", path,
                    spacing);
    TRY(refuse_unknown(j, path));
    return betas(s, j, path);
}

Status schedule_read(NoiseSchedule *s, const char *folder)
{
    json_t *j;
    char *path = path_join(folder, "scheduler/scheduler_config.json");
    Status status = json_file_object(&j, path, 1 << 20, 8);
    if (!status) {
        status = read_fields(s, j, path);
        json_decref(j);
    }
    free(path);
    return status;
}
