/* test_sampler.c - films of the sampler against the plain loop: the network with each step's own time, its
 * prompts embedded anew, noise drawn on the host. Bit by bit on a CPU: holding what depends on
 * prompts or times alone, and drawing noise inside the graph, changes nothing.
 *
 *   test_sampler [SEED]
 */
#include "sample/sampler.h"
#include "base/random.h"
#include "exec/exec.h"
#include "ops/ops.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

enum { SIDE = 40, PIXELS = SIDE * SIDE, LATENT = 5 * 5 * 4, STEPS = 4, FILMS = 3 };
static const char model_folder[] = SOURCE_DIR "/configs/models/tiny";

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

typedef struct {
    Device *d;
    Ldm m;
    uint32_t seed;
    float source[FILMS * PIXELS];
} World;

static int open_world(void **state)
{
    World *w = calloc(1, sizeof *w);
    w->seed = *(uint32_t *)*state;
    require(device_open(&w->d, "cpu", "auto", 1, NULL));
    require(ldm_open(&w->m, w->d, model_folder, (LdmUse){.random = true, .seed = w->seed}));
    for (uint32_t i = 0; i < FILMS * PIXELS; i++)
        w->source[i] = (float)random_uniform((RandomKey){w->seed, STREAM_TEST, 0, 0}, i);
    *state = w;
    return 0;
}

static int close_world(void **state)
{
    World *w = *state;
    ldm_close(&w->m);
    device_close(w->d);
    free(w);
    return 0;
}

/* ---- the plain loop, one film at a time --------------------------------------------------------- */

typedef struct {
    Graph *g;
    Exec *e;
    Tensor *input, *x, *t, *context, *noise, *coef, *next;
} Net;

static void net_open(Net *n, World *w, const SamplerSettings *set)
{
    int guided = set->guidance > 1, rows = guided ? 2 : 1;
    Graph *g = n->g = device_graph(w->d);
    n->input = graph_leaf(g, KIND_INPUT, DTYPE_F32, "input", 4, (int[]){rows, 5, 5, 4});
    n->x = graph_leaf(g, KIND_INPUT, DTYPE_F32, "x", 4, (int[]){1, 5, 5, 4});
    n->t = graph_leaf(g, KIND_INPUT, DTYPE_F32, "t", 1, &rows);
    n->context = graph_leaf(g, KIND_INPUT, DTYPE_F32, "context", 3,
                            (int[]){rows, ldm_tokens(&w->m), 32});
    n->noise = graph_leaf(g, KIND_INPUT, DTYPE_F32, "noise", 4, n->x->dim);
    n->coef = graph_leaf(g, KIND_INPUT, DTYPE_F32, "coef", 1, (int[]){6});
    Tensor *p = unet(g, &w->m.unet, &w->m.unet_config, n->input, n->t, n->context, false);
    n->next = ddim_step(g, n->x, p, set->eta > 0 ? n->noise : NULL, n->coef,
                        (DdimArgs){guided, w->m.schedule.prediction, (float)set->guidance});
    require(graph_status(g));
    params_bind(g);
    graph_finish(g, &n->next, 1);
    require(exec_new(&n->e, w->d, g, &n->next, 1));
}

static void embed(World *w, const char *prompt, float *context)
{
    int32_t *ids = calloc((size_t)ldm_tokens(&w->m), sizeof *ids);
    require(ldm_tokenize(&w->m, &prompt, 1, ids));
    require(ldm_embed(&w->m, ids, 1, context));
    free(ids);
}

static void plain_film(World *w, const SamplerSettings *set, const SampleRequest *r, float *film)
{
    Net n;
    int t[STEPS], first = set->image_to_image ? STEPS - (int)(STEPS * set->strength) : 0;
    size_t text = (size_t)ldm_tokens(&w->m) * 32;
    float x[2 * LATENT], noise[LATENT], time[2], coef[6];
    float *context = calloc(2 * text, sizeof *context);
    net_open(&n, w, set);
    int guided = n.t->dim[0] == 2;
    if (guided) embed(w, r->negative ? r->negative : "", context);
    embed(w, r->prompt, context + (guided ? text : 0));
    require(schedule_timesteps(&w->m.schedule, w->m.folder, set->spacing, STEPS, first, t));
    float ab = (float)w->m.schedule.alpha_bar[t[first]], keep = sqrtf(ab), rest = sqrtf(1 - ab);
    random_normals(noise, LATENT, (RandomKey){w->seed, STREAM_START, 0, r->id});
    memcpy(x, noise, sizeof noise);
    if (set->image_to_image) {
        require(ldm_encode(&w->m, r->source, 1, film_square(SIDE), x));
        for (int k = 0; k < LATENT; k++) x[k] = keep * x[k] + rest * noise[k];
    }
    for (int i = first; i < STEPS; i++) {
        time[0] = time[1] = (float)t[i];
        schedule_ddim(&w->m.schedule, t[i], STEPS, set->eta, coef);
        random_normals(noise, LATENT, (RandomKey){w->seed, STREAM_STEP, (uint32_t)i, r->id});
        memcpy(x + LATENT, x, LATENT * sizeof *x);
        require(exec_write(n.e, n.input, x));
        require(exec_write(n.e, n.x, x));
        require(exec_write(n.e, n.t, time));
        require(exec_write(n.e, n.context, context));
        require(exec_write(n.e, n.noise, noise));
        require(exec_write(n.e, n.coef, coef));
        require(exec_run(n.e));
        require(exec_read(n.e, n.next, x));
    }
    require(ldm_decode(&w->m, x, 1, film_square(SIDE), film));
    exec_free(n.e);
    graph_free(n.g);
    free(context);
}

/* ---- cases -------------------------------------------------------------------------------------- */

static const SamplerSettings settings[] = {
    {.image_to_image = true, .strength = .8, .guidance = 3, .eta = .5, .steps = STEPS},
    {.image_to_image = true, .strength = 1, .guidance = 1, .eta = 0, .steps = STEPS},
    {.guidance = 4, .eta = 0, .steps = STEPS, .spacing = SPACING_TRAILING},
    {.guidance = 1, .eta = 1, .steps = STEPS},
};

/* Prompts change and change back; ids fill both words. */
static void requests(const World *w, SampleRequest r[FILMS])
{
    static const char *const prompt[FILMS] = {"pneumonia", "chest x-ray of a child", "pneumonia"};
    for (int i = 0; i < FILMS; i++)
        r[i] = (SampleRequest){.id = ((uint64_t)i << 32) + 4000000000u + (uint64_t)i,
                               .prompt = prompt[i],
                               .negative = i == 1 ? "normal" : NULL,
                               .source = w->source + i * PIXELS};
}

static void films_are_the_plain_loops(void **state)
{
    World *w = *state;
    float want[FILMS * PIXELS], got[FILMS * PIXELS];
    SampleRequest r[FILMS];
    requests(w, r);
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) {
        for (int i = 0; i < FILMS; i++) plain_film(w, &settings[k], &r[i], want + i * PIXELS);
        for (int batch = 1; batch <= 2; batch++) {
            Sampler *s;
            require(sampler_open(&s, &w->m, film_square(SIDE), batch, settings[k], w->seed));
            for (int i = 0; i < FILMS; i += batch)
                require(sampler_run(s, r + i, FILMS - i < batch ? 1 : batch, got + i * PIXELS));
            sampler_close(s);
            for (int i = 0; i < FILMS; i++)
                if (memcmp(got + i * PIXELS, want + i * PIXELS, PIXELS * sizeof *got))
                    fail_msg("settings %zu, batch %d: film %d differs", k, batch, i);
        }
    }
}

/* Noise that is brought, and is what would be drawn, gives the film that drawing gives. */
static void given_noise_is_taken(void **state)
{
    World *w = *state;
    float drawn[PIXELS], given[PIXELS], noise[LATENT], steps[STEPS * LATENT];
    SampleRequest r[FILMS];
    requests(w, r);
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) {
        Sampler *s;
        SamplerSettings set = settings[k];
        require(sampler_open(&s, &w->m, film_square(SIDE), 2, set, w->seed));
        require(sampler_run(s, r, 1, drawn));
        int run = sampler_steps(s), first = STEPS - run;
        sampler_close(s);
        random_normals(noise, LATENT, (RandomKey){w->seed, STREAM_START, 0, r->id});
        for (int i = 0; i < run; i++)
            random_normals(steps + i * LATENT, LATENT,
                           (RandomKey){w->seed, STREAM_STEP, (uint32_t)(first + i), r->id});
        for (int wrong = 0; wrong < 2; wrong++) {
            SampleRequest q = r[0];
            noise[0] += (float)wrong;
            q.noise = noise;
            set.noise_given = set.eta > 0;
            if (set.noise_given) q.step_noise = steps;
            require(sampler_open(&s, &w->m, film_square(SIDE), 2, set, w->seed + 1));
            require(sampler_run(s, &q, 1, given));
            sampler_close(s);
            assert_int_equal(memcmp(given, drawn, sizeof drawn) != 0, wrong);
        }
    }
}

int main(int argc, char **argv)
{
    uint32_t seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    printf("seed %u (give it as an argument to repeat)\n", seed);
    struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(films_are_the_plain_loops, open_world, close_world),
        cmocka_unit_test_setup_teardown(given_noise_is_taken, open_world, close_world),
    };
    for (int i = 0; i < 2; i++) tests[i].initial_state = &seed;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
