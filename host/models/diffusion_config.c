/* diffusion_config.c - reads scheduler_config.json: betas, and what of them DDIM takes.
 *
 * As torch computes them: betas in fp32 (linspace of n: from the front below n / 2, from the back
 * above, each product and sum rounded once), their cumulative product in double, rounded to fp32.
 */
#include "base/file.h"
#include "models/diffusion.h"
#include "weights/json_config.h"
#include <math.h>
#include <stdlib.h>

static const double PI = 3.14159265358979323846;

/* The double value rounded to fp32: written out, since a double holds it. */
static double f32(double v) { return (float)v; }

typedef struct {
    double beta[MAX_TIMESTEPS];
    double start, end;
    int n;
} Betas;

static void linspace(Betas *b, double start, double end)
{
    double first = f32(start), last = f32(end);
    double step = b->n > 1 ? f32(f32(last - first) / (b->n - 1)) : 0;
    for (int t = 0; t < b->n; t++)
        b->beta[t] = f32(t < b->n / 2 || b->n == 1 ? first + step * t
                                                   : last - step * (b->n - 1 - t));
}

static double cosine(double t)
{
    double c = cos((t + 0.008) / 1.008 * PI / 2);
    return c * c;
}

/* Nichol & Dhariwal's alpha_bar, betas held below 0.999. */
static void squared_cosine(Betas *b)
{
    for (int t = 0; t < b->n; t++)
        b->beta[t] = f32(
            fmin(1 - cosine((t + 1) / (double)b->n) / cosine(t / (double)b->n), 0.999));
}

static void accumulate(double *alpha_bar, const Betas *b)
{
    double product = 1;
    for (int t = 0; t < b->n; t++) alpha_bar[t] = f32(product *= f32(1 - b->beta[t]));
}

/* Shifts sqrt(alpha_bar) to end at 0 and scales it to begin where it did. */
static void rescale_zero_snr(Betas *b)
{
    static _Thread_local double bar[MAX_TIMESTEPS];
    accumulate(bar, b);
    for (int t = 0; t < b->n; t++) bar[t] = f32(sqrt(bar[t]));
    double first = bar[0], last = bar[b->n - 1], scale = f32(first / f32(first - last));
    double before = 1;
    for (int t = 0; t < b->n; t++) {
        double root = f32(f32(bar[t] - last) * scale), square = f32(root * root);
        b->beta[t] = f32(1 - f32(square / before));
        before = square;
    }
}

static Status trained(Betas *b, JsonConfig *j)
{
    int n = 0;
    TRY(json_config_reals(b->beta, &n, MAX_TIMESTEPS, j, "trained_betas", 0, 1));
    if (n != b->n)
        return FAIL(ERR_INPUT,
                    "%s: trained_betas: found %d values, expected num_train_timesteps %d", j->path,
                    n, b->n);
    for (int t = 0; t < n; t++) b->beta[t] = f32(b->beta[t]);
    return OK;
}

static Status read_betas(NoiseSchedule *s, JsonConfig *j)
{
    static const char *const kinds[] = {"linear", "scaled_linear", "squaredcos_cap_v2"};
    static _Thread_local Betas b;
    int kind = 0;
    bool rescale = false;
    b.n = s->n;
    b.start = 1e-4;
    b.end = .02;
    TRY(json_config_choice(&kind, j, "beta_schedule", kinds, 3));
    TRY(json_config_real(&b.start, j, "beta_start", 0, 1));
    TRY(json_config_real(&b.end, j, "beta_end", 0, 1));
    TRY(json_config_bool(&rescale, j, "rescale_betas_zero_snr"));
    if (json_config_has(j, "trained_betas")) TRY(trained(&b, j));
    else if (kind == 0) linspace(&b, b.start, b.end);
    else if (kind == 2) squared_cosine(&b);
    else {
        linspace(&b, sqrt(b.start), sqrt(b.end));
        for (int t = 0; t < b.n; t++) b.beta[t] = f32(b.beta[t] * b.beta[t]);
    }
    if (rescale) rescale_zero_snr(&b);
    accumulate(s->alpha_bar, &b);
    for (int t = 0; t < s->n; t++)
        if (!(s->alpha_bar[t] < 1 && (s->alpha_bar[t] > 0 || (rescale && t == s->n - 1))))
            return FAIL(ERR_INPUT,
                        "%s: betas: found alpha_bar %g at timestep %d, expected between 0 and 1",
                        j->path, s->alpha_bar[t], t);
    return OK;
}

/* Those that diffusers lets DDIM follow; others mean another process (flows, sigmas). */
static const char *const classes[] = {
    "DDIMScheduler",           "DDPMScheduler",
    "PNDMScheduler",           "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",  "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",   "DPMSolverMultistepScheduler",
    "KDPM2DiscreteScheduler",  "DPMSolverSinglestepScheduler",
    "DPMSolverSDEScheduler",   "KDPM2AncestralDiscreteScheduler",
    "DEISMultistepScheduler",  "UniPCMultistepScheduler",
    "DDIMParallelScheduler",   "DDPMParallelScheduler",
};

/* Keys of other schedulers, of thresholding, which is off, and of clip_sample, which Stable Diffusion's
 * pipelines switch off: DDIM has no use for them. */
static const JsonIgnored ignored[] = {
    {"skip_prk_steps", JSON_BOOL},
    {"variance_type", JSON_WORD},
    {"interpolation_type", JSON_WORD},
    {"use_karras_sigmas", JSON_BOOL},
    {"use_beta_sigmas", JSON_BOOL},
    {"use_exponential_sigmas", JSON_BOOL},
    {"use_lu_lambdas", JSON_BOOL},
    {"sigma_min", JSON_NUMBER},
    {"sigma_max", JSON_NUMBER},
    {"timestep_type", JSON_WORD},
    {"final_sigmas_type", JSON_WORD},
    {"solver_order", JSON_WHOLE},
    {"algorithm_type", JSON_WORD},
    {"solver_type", JSON_WORD},
    {"lower_order_final", JSON_BOOL},
    {"euler_at_final", JSON_BOOL},
    {"lambda_min_clipped", JSON_NUMBER},
    {"predict_x0", JSON_BOOL},
    {"disable_corrector", JSON_WHOLES},
    {"solver_p", JSON_WORD | JSON_TABLE},
    {"noise_sampler_seed", JSON_WHOLE},
    {"sample_max_value", JSON_NUMBER},
    {"flow_shift", JSON_NUMBER},
    {"dynamic_thresholding_ratio", JSON_NUMBER},
    {"time_shift_type", JSON_WORD},
    {"shift_terminal", JSON_NUMBER},
    {"clip_sample_range", JSON_NUMBER},
};
static const JsonFixed fixed[] = {
    {"thresholding", "false"},
    {"use_flow_sigmas", "false"},
    {"use_dynamic_shifting", "false"},
};

static const char *const nullable[] = {"_class_name", "trained_betas", "clip_sample"};

static Status read_fields(NoiseSchedule *s, JsonConfig *j)
{
    static const char *const predictions[] = {"epsilon", "v_prediction", "sample"};
    static const char *const spacings[] = {"leading", "trailing", "linspace"};
    int class, prediction = PREDICT_NOISE, spacing = SPACING_LEADING;
    int offset = PIPELINE_OFFSET;
    bool clip = false;
    *s = (NoiseSchedule){.n = 1000, .set_alpha_to_one = true};
    TRY(json_config_choice(&class, j, "_class_name", classes,
                           (int)(sizeof classes / sizeof *classes)));
    TRY(json_config_int(&s->n, j, "num_train_timesteps", 1, MAX_TIMESTEPS));
    TRY(json_config_int(&offset, j, "steps_offset", 0, s->n - 1));
    TRY(json_config_bool(&s->set_alpha_to_one, j, "set_alpha_to_one"));
    TRY(json_config_choice(&prediction, j, "prediction_type", predictions, 3));
    TRY(json_config_choice(&spacing, j, "timestep_spacing", spacings, 3));
    TRY(json_config_bool(&clip, j, "clip_sample"));
    s->prediction = (Prediction)prediction;
    s->spacing = (Spacing)spacing;
    s->outdated = offset != PIPELINE_OFFSET || clip;
    TRY(read_betas(s, j));
    TRY(json_config_nulls(j, nullable, 3));
    TRY(json_config_fixed(j, fixed, (int)(sizeof fixed / sizeof *fixed)));
    return json_config_finish(j, ignored, (int)(sizeof ignored / sizeof *ignored));
}

Status schedule_read(NoiseSchedule *s, const char *folder)
{
    JsonConfig j;
    char *path = path_join(folder, "scheduler/scheduler_config.json");
    Status status = json_config_open(&j, path);
    free(path);
    if (status) return status;
    status = read_fields(s, &j);
    json_config_close(&j);
    return status;
}
