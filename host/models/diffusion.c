/* diffusion.c - noise schedules and DDIM coefficients. */
#include "models/diffusion.h"
#include "base/file.h"
#include "weights/json_config.h"
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

double schedule_snr(const NoiseSchedule *s, int t) { return s->alpha_bar[t] / (1 - s->alpha_bar[t]); }

double schedule_min_snr(const NoiseSchedule *s, int t, double gamma)
{
    if (gamma <= 0) return 1;
    double snr = schedule_snr(s, t);
    return fmin(snr, gamma) / (s->v_prediction ? snr + 1 : snr);
}

Status schedule_timesteps(const NoiseSchedule *s, Spacing spacing, int steps, int *t)
{
    if (steps < 1 || steps > s->n)
        return FAIL(ERR_USAGE, "synthesis.steps: %d, expected 1..%d as the model was trained with", steps, s->n);
    double n = s->n;
    for (int i = 0; i < steps; i++) {
        double at = spacing == SPACING_LEADING    ? (double)(steps - 1 - i) * (s->n / steps) + s->steps_offset
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
    double value[6] = {sqrt(ab), sqrt(1 - ab), sqrt(ab_to), sqrt(fmax(1 - ab_to - sigma * sigma, 0)), sigma, 0};
    for (int i = 0; i < 6; i++) coef[i] = (float)value[i];
}
