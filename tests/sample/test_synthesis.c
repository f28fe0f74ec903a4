/* test_synthesis.c - the manifest of synthetic films: an id of its own for each, also where the
 * class has the longest name that prepare takes; prompts cut as training cuts them. */
#include "base/csv.h"
#include "base/random.h"
#include "sample/synthesis.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { COUNT = 4, FIRST = 999998, LONGEST_LABEL = 64 };

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

static void each_film_has_its_id_and_prompt(void **state)
{
    (void)state;
    static const char *const prompt[] = {"chest x-ray", "film", "chest x-ray"};
    char folder[] = "/tmp/test_synthesis_XXXXXX", label[LONGEST_LABEL + 1], expected[128];
    Config c;
    Device *d;
    Ldm m;
    Csv csv;
    assert_non_null(mkdtemp(folder));
    char *model = path_join(folder, "model"), *films = path_join(folder, "films"),
         *manifest = path_join(films, "manifest.csv");
    memset(label, 'x', LONGEST_LABEL);
    label[LONGEST_LABEL] = 0;
    config_default(&c);
    require(config_read(&c, SOURCE_DIR "/configs/tiny.ini"));
    strcpy(c.synthesis.mode, "text-to-image");
    c.synthesis.steps = 1;
    require(device_open(&d, "cpu", "auto", 1, NULL));
    require(ldm_open(&m, d, SOURCE_DIR "/configs/models/tiny", (LdmUse){.random = true}));
    require(ldm_save(&m, model, NULL, NULL));
    ldm_close(&m);
    SynthesisJob job = {.config = &c,
                        .model = model,
                        .out = films,
                        .label = label,
                        .prompts = " chest x-ray|film |chest x-ray",
                        .count = COUNT,
                        .first_id = FIRST,
                        .name = "test"};
    Log *log = log_new(true);
    require(synthesis_run(&job, d, log));
    require(csv_read(&csv, manifest));
    assert_int_equal(csv.n_row, COUNT);
    for (int i = 0; i < COUNT; i++) {
        snprintf(expected, sizeof expected, "synthetic-%s-%06d", label, FIRST + i);
        assert_string_equal(csv_at(&csv, i, csv_find(&csv, "id")), expected);
        RandomKey k = {(uint32_t)c.study.seed, STREAM_CAPTION, 0, (uint64_t)(FIRST + i)};
        assert_string_equal(csv_at(&csv, i, csv_find(&csv, "prompt")),
                            prompt[random_below(k, 0, 3)]);
    }
    csv_free(&csv);
    log_free(log);
    device_close(d);
    require(dir_remove(folder));
    free(manifest);
    free(films);
    free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_film_has_its_id_and_prompt)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
