/* diffusion.h - the arithmetic of the forward process and of DDIM (MODEL_SPECS: DDPM, Ho et al.
 * 2020; DDIM, Song et al. 2021; v-prediction, Salimans & Ho 2022; min-SNR, Hang et al. 2023).
 *
 * x_t = sqrt(ab_t) x_0 + sqrt(1 - ab_t) noise, with ab_t the product of 1 - beta up to t. Networks
 * predict the noise (epsilon) or v = sqrt(ab_t) noise - sqrt(1 - ab_t) x_0. Tables in double.
 */
#ifndef DIFFUSION_H
#define DIFFUSION_H
#include "base/status.h"

enum { MAX_TIMESTEPS = 4096 };
typedef enum { SPACING_LEADING, SPACING_TRAILING, SPACING_LINSPACE } Spacing;

/* The schedule as read from scheduler/scheduler_config.json. */
typedef struct {
    int n; /* num_train_timesteps, up to MAX_TIMESTEPS */
    double alpha_bar[MAX_TIMESTEPS];
    bool v_prediction;     /* else epsilon */
    bool set_alpha_to_one; /* alpha_bar after the last step is 1 instead of alpha_bar[0] */
    int steps_offset;      /* added to leading timesteps */
    Spacing spacing;
} NoiseSchedule;

Status schedule_read(NoiseSchedule *s, const char *folder); /* a diffusers model folder */
void schedule_scaled_linear(NoiseSchedule *s, int n, double beta_first, double beta_last);
bool spacing_parse(Spacing *out, const char *name); /* "leading", "trailing", "linspace" */

/* Weight of a sample's mean squared error; gamma 0: 1 everywhere. */
double schedule_min_snr(const NoiseSchedule *s, int t, double gamma);

/* The timesteps of `steps` sampling steps, descending, into t[steps]. */
Status schedule_timesteps(const NoiseSchedule *s, Spacing spacing, int steps, int *t);
/* How many of the last steps image-to-image runs: min(int(steps * strength), steps). */
int schedule_strength_steps(int steps, double strength);

/* Coefficients of the step from t to t' = t - n / steps (below 0: the end), as op ddim_step reads
 * them: sqrt(ab), sqrt(1-ab), sqrt(ab'), sqrt(1-ab'-s^2), s, 0. */
void schedule_ddim(const NoiseSchedule *s, int t, int steps, double eta, float coef[6]);
#endif
