/* test_diffusion.c - schedules read from scheduler_config.json of any class, against diffusers'
 * DDIMScheduler in a Stable Diffusion pipeline (tests/golden/schedules/make.py): alpha_bar and timesteps equal, DDIM
 * steps to rounding; what cannot be honoured is refused by name. Rescaled to zero SNR, alpha_bar
 * hangs on torch's vectorised square root, which may be off by one unit in the last place; that
 * grows by the rescale's gain, and each later factor may then be off by one more.
 */
#include "base/file.h"
#include "kernels.h"
#include "models/diffusion.h"
#include "weights/json_text.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h> /* needs those above */

static char folder[] = "/tmp/test_diffusion-XXXXXX";

static Status read_text(NoiseSchedule *s, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/scheduler/scheduler_config.json", folder);
    assert_int_equal(file_write(path, text, strlen(text)), OK);
    return schedule_read(s, folder);
}

static double number(const json_t *j, const char *key)
{
    const json_t *v = json_object_get(j, key);
    assert_true(json_is_number(v));
    return json_number_value(v);
}

/* With eta, coefficients are roots of 1 - ab' - s^2 and of multiples of 1 - ab / ab': differences
 * of fp32 numbers up to 1, each off by half a unit there, 2^-24 for two. Ours and torch's: twice
 * that. */
static double lost_digits(double root)
{
    const double square = 2 * 0x1p-24;
    return root > sqrt(square) ? square / (2 * root) : sqrt(square);
}

/* Every term is off by a few roundings of its own size; x0's parts are divided by sqrt(ab). */
static void check_step(const NoiseSchedule *s, int steps, const json_t *taken, Stream *stream)
{
    float coef[6], x = (float)number(taken, "x"), p = (float)number(taken, "p"), y;
    double eta = number(taken, "eta"), want = number(taken, "y");
    float noise = (float)number(taken, "noise");
    schedule_ddim(s, (int)number(taken, "t"), steps, eta, coef);
    assert_int_equal(cpu_ddim_step(&y, &x, &p, eta > 0 ? &noise : NULL, coef, 1, 0,
                                   (int)s->prediction, 0, stream),
                     OK);
    double part = fabs((double)x) + fabs((double)p);
    double clean = s->prediction == PREDICT_NOISE ? part / (double)coef[0] : part;
    double rest = s->prediction == PREDICT_SAMPLE ? part / (double)coef[1] : part;
    double scale =
        (double)coef[2] * clean + (double)coef[3] * rest + (double)coef[4] * fabs((double)noise);
    double lost = lost_digits(coef[3]) * rest + lost_digits(coef[4]) * fabs((double)noise);
    if (!(fabs((double)y - want) <= 16 * 0x1p-24 * scale + (eta > 0 ? lost : 0)))
        fail_msg("t %g of %d steps: %.9g, expected %.9g (scale %g)", number(taken, "t"), steps,
                 (double)y, want, scale);
}

static void check_plan(const NoiseSchedule *s, const json_t *plan, Stream *stream)
{
    static int t[MAX_TIMESTEPS];
    int steps = (int)number(plan, "steps");
    const json_t *want = json_object_get(plan, "timesteps"),
                 *taken = json_object_get(plan, "taken");
    Status status = schedule_timesteps(s, folder, s->spacing, steps, 0, t);
    if (s->alpha_bar[json_integer_value(json_array_get(want, 0))] <= 0 &&
        s->prediction == PREDICT_NOISE) {
        assert_int_equal(status, ERR_INPUT);
        assert_non_null(strstr(status_message(), folder));
        assert_non_null(strstr(status_message(),
                               "scheduler_config.json: prediction_type: found epsilon with zero"));
        return;
    }
    assert_int_equal(status, OK);
    for (int i = 0; i < steps; i++)
        if (t[i] != json_integer_value(json_array_get(want, (size_t)i)))
            fail_msg("%s, step %d of %d: timestep %d, expected %d", spacing_name(s->spacing), i,
                     steps, t[i], (int)json_integer_value(json_array_get(want, (size_t)i)));
    for (size_t i = 0; i < json_array_size(taken); i++)
        check_step(s, steps, json_array_get(taken, i), stream);
}

static void equals_diffusers(void **state)
{
    static NoiseSchedule s;
    char *text;
    size_t size, i;
    json_t *c;
    assert_int_equal(
        file_read(&text, &size, SOURCE_DIR "/tests/golden/schedules/schedules.json", 1 << 24), OK);
    json_t *all = json_loadb(text, size, 0, NULL);
    assert_true(json_array_size(all) >= 30);
    json_array_foreach(all, i, c)
    {
        const char *file = json_string_value(json_object_get(c, "file")), *t;
        json_t *bar = json_object_get(c, "alpha_bar"), *value, *plans = json_object_get(c, "plans");
        double gain = number(c, "gain");
        if (read_text(&s, file)) fail_msg("%s\n%s", status_message(), file);
        json_object_foreach(bar, t, value)
        {
            double wanted = json_number_value(value), error = fabs(s.alpha_bar[atoi(t)] - wanted);
            if (error > gain * (atoi(t) + 4) * 0x1p-23 * sqrt(wanted))
                fail_msg("case %zu, alpha_bar[%s]: %.9g, expected %.9g\n%s", i, t,
                         s.alpha_bar[atoi(t)], json_number_value(value), file);
        }
        for (size_t k = 0; k < json_array_size(plans); k++)
            check_plan(&s, json_array_get(plans, k), *state);
    }
    json_decref(all);
    free(text);
}

static void refuses_by_name(void **state)
{
    static const struct {
        const char *text, *named;
    } bad[] = {
        {"{\"thresholding\": true}", "thresholding: found true, expected false"},
        {"{\"beta_schedule\": \"sigmoid\"}", "beta_schedule: found \"sigmoid\", expected linear, "},
        {"{\"prediction_type\": \"flow_prediction\"}", "prediction_type: found"},
        {"{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\"}",
         "_class_name: found "
         "\"FlowMatchEulerDiscreteScheduler\", expected DDIMScheduler, DDPMScheduler, "
         "PNDMScheduler, "
         "LMSDiscreteScheduler or 12 others"},
        {"{\"beta_begin\": 0.1}", "beta_begin: found 0.1, expected no such key"},
        {"{\"use_flow_sigmas\": true}", "use_flow_sigmas: found true, expected false"},
        {"{\"trained_betas\": [0.1, 0.2], \"num_train_timesteps\": 3}",
         "trained_betas: found 2 values"},
        {"{\"trained_betas\": [0.1, \"a\"], \"num_train_timesteps\": 2}",
         "trained_betas[1]: found"},
        {"{\"trained_betas\": [0.1, 1.0], \"num_train_timesteps\": 2}",
         "found alpha_bar 0 at timestep 1"},
        {"{\"beta_start\": 0, \"beta_end\": 0}", "found alpha_bar 1 at timestep 0"},
        {"{\"num_train_timesteps\": 100000}",
         "num_train_timesteps: found 100000, expected 1..4096"},
        {"{\"steps_offset\": -1}", "steps_offset: found -1"},
        {"{\"beta_end\": Infinity}", "beta_end: found Infinity, expected 0..1"},
        {"{\"beta_end\": -Infinity}", "beta_end: found -Infinity, expected"},
        {"{\"beta_end\": NaN}", "beta_end: found NaN, expected"},
        {"{\"beta_end\": null}", "beta_end: found null, expected a value"},
        {"{\"clip_sample_range\": \"1\"}", "clip_sample_range: found \"1\", expected a number"},
        {"{\"solver_order\": 2.5}", "solver_order: found 2.5, expected a whole number"},
        {"{\"use_karras_sigmas\": 0}", "use_karras_sigmas: found 0, expected true or false"},
        {"{\"variance_type\": false}", "variance_type: found false, expected a text"},
        {"{\"disable_corrector\": [1, 2.5]}",
         "disable_corrector: found [1,2.5], expected a list of whole numbers"},
        {"{\"solver_p\": 1}", "solver_p: found 1, expected a text or an object"},
        {"{\"clip_sample\": \"no\"}", "clip_sample: found \"no\""},
    };
    static NoiseSchedule s;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(read_text(&s, bad[i].text), ERR_INPUT);
        if (!strstr(status_message(), bad[i].named))
            fail_msg("%s\n%s", bad[i].text, status_message());
    }
    assert_int_equal(
        read_text(&s, "{\"skip_prk_steps\": true, \"use_karras_sigmas\": true, \"_old\": 1, "
                      "\"lambda_min_clipped\": -Infinity, \"solver_p\": null}"),
        OK);
    assert_true(s.set_alpha_to_one && s.prediction == PREDICT_NOISE && !s.outdated);
}

/* What a pipeline overrules in a file is known to whoever wants to say so. */
static void overruled_values_are_marked(void **state)
{
    static NoiseSchedule s;
    (void)state;
    assert_int_equal(read_text(&s, "{\"steps_offset\": 1, \"clip_sample\": false}"), OK);
    assert_false(s.outdated);
    assert_int_equal(read_text(&s, "{\"steps_offset\": 0, \"clip_sample\": false}"), OK);
    assert_true(s.outdated);
    assert_int_equal(read_text(&s, "{\"clip_sample\": true}"), OK);
    assert_true(s.outdated);
}

/* As many leading steps as there are timesteps, each one later: diffusers has an IndexError, unless
 * image-to-image begins behind the first. */
static void timesteps_behind_the_last_are_refused(void **state)
{
    static NoiseSchedule s;
    int t[50];
    (void)state;
    assert_int_equal(read_text(&s, "{\"num_train_timesteps\": 50, \"steps_offset\": 7}"), OK);
    assert_int_equal(schedule_timesteps(&s, folder, SPACING_LEADING, 50, 0, t), ERR_USAGE);
    assert_non_null(
        strstr(status_message(),
               "found 50 sampling steps with leading timesteps, of which the first would "
               "be 50, expected fewer steps: the last timestep is 49"));
    assert_int_equal(schedule_timesteps(&s, folder, SPACING_LEADING, 50, 1, t), OK);
    assert_true(t[1] == 49 && t[49] == 1);
    assert_int_equal(schedule_timesteps(&s, folder, SPACING_LEADING, 49, 0, t), OK);
    assert_int_equal(schedule_timesteps(&s, folder, SPACING_TRAILING, 50, 0, t), OK);
}

static int open_all(void **state)
{
    char path[256];
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/scheduler", folder);
    return dir_make(path) || cpu_stream_new((Stream **)state) ? -1 : 0;
}

static int close_all(void **state)
{
    cpu_stream_free(*state);
    return dir_remove(folder) ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_diffusers),
                                       cmocka_unit_test(refuses_by_name),
                                       cmocka_unit_test(overruled_values_are_marked),
                                       cmocka_unit_test(timesteps_behind_the_last_are_refused)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
