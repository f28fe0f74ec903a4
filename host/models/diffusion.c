/* diffusion.c - timesteps, weights of losses, coefficients of DDIM. fp32 where diffusers has it. */
#include "models/diffusion.h"
#include <math.h>
#include <string.h>

static const char *const spacings[] = {"leading", "trailing", "linspace"};
static const char *const predictions[] = {"epsilon", "v_prediction", "sample"};

const char *spacing_name(Spacing s) { return spacings[s]; }
const char *prediction_name(Prediction p) { return predictions[p]; }

bool spacing_parse(Spacing *out, const char *name)
{
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, spacings[i])) {
            *out = (Spacing)i;
            return true;
        }
    return false;
}

double schedule_min_snr(const NoiseSchedule *s, int t, double gamma)
{
    if (gamma <= 0) return 1;
    double snr = s->alpha_bar[t] / (1 - s->alpha_bar[t]), held = fmin(snr, gamma);
    if (s->prediction == PREDICT_SAMPLE) return held;
    if (s->prediction == PREDICT_VELOCITY) return held / (snr + 1);
    return snr > gamma ? gamma / snr : 1;
}

void schedule_target(const NoiseSchedule *s, int t, float c[2])
{
    double keep = sqrt(s->alpha_bar[t]), rest = sqrt(1 - s->alpha_bar[t]);
    bool v = s->prediction == PREDICT_VELOCITY;
    c[0] = s->prediction == PREDICT_SAMPLE ? 1 : v ? (float)-rest : 0;
    c[1] = s->prediction == PREDICT_SAMPLE ? 0 : v ? (float)keep : 1;
}

/* Timestep i of an ascending leading or linspace list, of a descending trailing one; rounded as
 * numpy does, half to even, from the same intermediate values. */
static double timestep(const NoiseSchedule *s, Spacing spacing, int steps, int i)
{
    double n = s->n, last = n - 1;
    if (spacing == SPACING_LEADING) return (double)i * (s->n / steps) + PIPELINE_OFFSET;
    if (spacing == SPACING_TRAILING) return rint(n + i * ((n - n / steps) - n)) - 1;
    return i && i == steps - 1 ? last : rint(i * (last / (steps > 1 ? steps - 1 : 1)));
}

Status schedule_timesteps(const NoiseSchedule *s, const char *folder, Spacing spacing, int steps,
                          int first, int *t)
{
    if (steps < 1 || steps > s->n)
        return FAIL(ERR_USAGE,
                    "found %d sampling steps, expected 1..%d as the model was trained with", steps,
                    s->n);
    for (int i = 0; i < steps; i++)
        t[i] = (int)timestep(s, spacing, steps, spacing == SPACING_TRAILING ? i : steps - 1 - i);
    if (first < steps && t[first] >= s->n)
        return FAIL(ERR_USAGE,
                    "found %d sampling steps with %s timesteps, of which the first would be %d, "
                    "expected fewer steps: the last timestep is %d",
                    steps, spacing_name(spacing), t[first], s->n - 1);
    if (first < steps && s->alpha_bar[t[first]] <= 0 && s->prediction == PREDICT_NOISE)
        return FAIL(
            ERR_INPUT,
            "%s/scheduler/scheduler_config.json: prediction_type: found epsilon with zero "
            "terminal SNR, expected v_prediction or sample: the first of %s timesteps is pure "
            "noise",
            folder, spacing_name(spacing));
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
    float ab = (float)s->alpha_bar[t];
    float ab_to = to >= 0 ? (float)s->alpha_bar[to]
                  : s->set_alpha_to_one ? 1
                                        : (float)s->alpha_bar[0];
    float variance = (1 - ab_to) / (1 - ab) * (1 - ab / ab_to);
    float sigma = (float)eta * sqrtf(fmaxf(variance, 0));
    float value[6] = {sqrtf(ab), sqrtf(1 - ab), sqrtf(ab_to),
                      sqrtf(fmaxf(1 - ab_to - sigma * sigma, 0)), sigma, 0};
    memcpy(coef, value, sizeof value);
}
