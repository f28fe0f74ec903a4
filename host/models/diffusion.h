/* diffusion.h - the arithmetic of the forward process and of DDIM (MODEL_SPECS: DDPM, Ho et al.
 * 2020; DDIM, Song et al. 2021; v-prediction, Salimans & Ho 2022; min-SNR, Hang et al. 2023;
 * zero-terminal-SNR rescale, Lin et al. 2024).
 *
 * x_t = sqrt(ab_t) x_0 + sqrt(1 - ab_t) noise, with ab_t the product of 1 - beta up to t. Networks
 * predict the noise (epsilon), v = sqrt(ab_t) noise - sqrt(1 - ab_t) x_0, or x_0 (sample). Tables
 * hold the fp32 values of diffusers' DDIMScheduler, bit for bit.
 */
#ifndef DIFFUSION_H
#define DIFFUSION_H
#include "ops/ops.h"

enum { MAX_TIMESTEPS = 4096 };
typedef enum { SPACING_LEADING, SPACING_TRAILING, SPACING_LINSPACE } Spacing;

/* The schedule as read from scheduler/scheduler_config.json. */
typedef struct {
    int n; /* num_train_timesteps, up to MAX_TIMESTEPS */
    double alpha_bar[MAX_TIMESTEPS];
    Prediction prediction;
    bool set_alpha_to_one; /* alpha_bar after the last step is 1 instead of alpha_bar[0] */
    Spacing spacing;
    bool outdated; /* the file has another steps_offset than 1, or clip_sample on */
} NoiseSchedule;

/* Added to leading timesteps, whatever the file says. */
enum { PIPELINE_OFFSET = 1 };

/* Of a diffusers model folder: what DDIMScheduler.from_config makes of the file, whichever
 * scheduler wrote it, in a Stable Diffusion pipeline: these set steps_offset to 1 and clip_sample to
 * false in a scheduler that they are constructed with. Other schedulers' own keys are without
 * meaning for DDIM (the list is in diffusion_config.c); keys that nobody knows, "thresholding":
 * true, and values that DDIM does not know are ERR_INPUT by name. */
Status schedule_read(NoiseSchedule *s, const char *folder);

const char *spacing_name(Spacing s); /* "leading", "trailing", "linspace" */
bool spacing_parse(Spacing *out, const char *name);
const char *prediction_name(Prediction p); /* as in scheduler_config.json */

/* Weight of a sample's mean squared error; gamma 0: 1 everywhere. */
double schedule_min_snr(const NoiseSchedule *s, int t, double gamma);
/* The target of that t is c[0] * x_0 + c[1] * noise. */
void schedule_target(const NoiseSchedule *s, int t, float c[2]);

/* The timesteps of `steps` sampling steps, descending, into t[steps]; where rounding makes numpy
 * append one below 0 to trailing ones (61 steps of 1000), that one is left out. Refused are, of those
 * from `first` on, a timestep behind the last (leading ones, as many as the model was trained with:
 * an IndexError in diffusers), and a first one without any signal left, from which noise prediction
 * cannot start. */
Status schedule_timesteps(const NoiseSchedule *s, const char *folder /* s's, for the error */,
                          Spacing spacing, int steps, int first, int *t);
/* How many of the last steps image-to-image runs: min(int(steps * strength), steps). */
int schedule_strength_steps(int steps, double strength);

/* Coefficients of the step from t to t' = t - n / steps (below 0: the end), as op ddim_step reads
 * them: sqrt(ab), sqrt(1-ab), sqrt(ab'), sqrt(1-ab'-s^2), s, 0. */
void schedule_ddim(const NoiseSchedule *s, int t, int steps, double eta, float coef[6]);
#endif
