/* test_ldm_data.c - which prompts films are drawn with: the template that the draw says, of the
 * film's own list, whatever lists share; blanks around templates, and templates that stand twice.
 *
 *   test_ldm_data [SEED]
 */
#include "base/csv.h"
#include "base/random.h"
#include "train/ldm_data.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { FILMS = 9, PRIOR = 3, SIDE = 80, BATCH = 6, STEPS = 400, MOST = 4 };

/* Lists whose templates lie apart, in another order, or twice in the table. */
static const struct {
    const char *templates, *prompt[MOST];
    int n;
} list[] = {
    {"pneumonia|chest x-ray", {"pneumonia", "chest x-ray"}, 2},
    {"normal lungs | chest x-ray", {"normal lungs", "chest x-ray"}, 2},
    {"chest x-ray|pneumonia", {"chest x-ray", "pneumonia"}, 2},
    {"film|lungs of a child|film", {"film", "lungs of a child", "film"}, 3},
    {"one|two|three|four", {"one", "two", "three", "four"}, 4}, /* together in the table */
    {"", {""}, 1},
    {"virus", {"virus"}, 1},
};
enum { LISTS = sizeof list / sizeof *list };

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

typedef struct {
    Log *log;
    Device *d;
    Ldm m;
    uint32_t seed;
    char *path[FILMS];
    LdmFilm film[FILMS];
    LdmData data;
} World;

static int list_of(int film) { return film % LISTS; }

static int open_world(void **state)
{
    World *w = calloc(1, sizeof *w);
    Csv csv;
    w->seed = *(uint32_t *)*state;
    w->log = log_new(true);
    require(device_open(&w->d, "cpu", "auto", 1, NULL));
    require(ldm_open(&w->m, w->d, SOURCE_DIR "/configs/models/tiny",
                     (LdmUse){.random = true, .seed = w->seed}));
    require(csv_read(&csv, SOURCE_DIR "/samples/tiny/films.csv"));
    for (int i = 0; i < FILMS; i++) {
        w->path[i] = path_join(SOURCE_DIR "/samples/films",
                               csv_at(&csv, i * csv.n_row / FILMS, csv_find(&csv, "path")));
        w->film[i] = (LdmFilm){w->path[i], list[list_of(i)].templates};
    }
    csv_free(&csv);
    require(ldm_data_open(&w->data, &w->m, w->film + PRIOR, FILMS - PRIOR, w->film, PRIOR, NULL, 0,
                          SIDE, true, false, NULL, "identity", NULL, w->log));
    *state = w;
    return 0;
}

static int close_world(void **state)
{
    World *w = *state;
    ldm_data_close(&w->data);
    ldm_close(&w->m);
    device_close(w->d);
    log_free(w->log);
    for (int i = 0; i < FILMS; i++) free(w->path[i]);
    free(w);
    return 0;
}

/* The film whose latent sample i has. */
static int film_of(const World *w, const LdmBatch *b, int i)
{
    size_t per = w->data.train.per;
    for (int k = 0; k < FILMS; k++) {
        const float *latent = k < PRIOR ? w->data.prior.latent + (size_t)k * per
                                        : w->data.train.latent + (size_t)(k - PRIOR) * per;
        if (!memcmp(b->latent + (size_t)i * per, latent, per * sizeof *latent)) return k;
    }
    fail_msg("sample %d is no film", i);
    return -1;
}

static void prompts_are_those_of_the_films_list(void **state)
{
    World *w = *state;
    LdmSettings set = {.accumulate = 1, .prior_share = .5};
    LdmBatch b;
    size_t tokens = (size_t)w->data.tokens;
    int32_t *ids = malloc(tokens * sizeof *ids);
    int drawn[LISTS][MOST] = {0};
    ldm_batch_new(&b, &w->data, BATCH);
    for (uint32_t step = 1; step <= STEPS; step++) {
        ldm_batch_draw(&b, &w->data, &w->m.schedule, &set, w->seed, step, 0);
        for (int i = 0; i < BATCH; i++) {
            int film = film_of(w, &b, i), l = list_of(film);
            RandomKey k = {w->seed, STREAM_CAPTION, step, (uint64_t)i};
            uint32_t one = random_below(k, 1, (uint32_t)list[l].n);
            assert_int_equal(film < PRIOR, i >= BATCH / 2);
            require(ldm_tokenize(&w->m, &list[l].prompt[one], 1, ids));
            if (memcmp(ids, b.ids + (size_t)i * tokens, tokens * sizeof *ids))
                fail_msg("step %u, film %d: not \"%s\"", step, film, list[l].prompt[one]);
            drawn[l][one]++;
        }
    }
    for (int l = 0; l < LISTS; l++)
        for (int i = 0; i < list[l].n; i++) assert_true(drawn[l][i] > 0);
    ldm_batch_free(&b);
    free(ids);
}

int main(int argc, char **argv)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint32_t seed = argc > 1 ? (uint32_t)atol(argv[1]) : (uint32_t)(now.tv_nsec ^ now.tv_sec);
    print_message("seed %u\n", seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate_setup_teardown(prompts_are_those_of_the_films_list, open_world,
                                                 close_world, &seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
