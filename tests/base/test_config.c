/* test_config.c - settings: round trips, and one clear error for each way to get them wrong. */
#include "base/random.h"
#include "config/config.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/test_config-XXXXXX";

static const char *put(const char *name, const char *text, size_t size)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(file_write(path, text, size), OK);
    return path;
}

static Status read_text(Config *c, const char *text)
{
    return config_read(c, put("given.ini", text, strlen(text)));
}

static void write_and_read(Config *back, const Config *c)
{
    char path[256];
    snprintf(path, sizeof path, "%s/run/config.ini", folder);
    OutFile o = {0};
    assert_int_equal(out_open(&o, path), OK);
    assert_int_equal(config_write(c, &o), OK);
    assert_int_equal(out_commit(&o), OK);
    config_default(back);
    if (config_read(back, path)) fail_msg("%s", status_message());
}

static void defaults_stand_and_come_back(void **state)
{
    (void)state;
    Config c, back;
    config_default(&c);
    assert_int_equal(c.study.repeats, 1);
    assert_true(c.ldm.learning_rate == 1e-4 && c.ldm.ema_decay == .9999);
    assert_string_equal(c.synthesis.mode, "image-to-image");
    write_and_read(&back, &c);
    assert_memory_equal(&c, &back, sizeof c);
}

/* Any double in range comes back bit for bit, and texts as they are. */
static void values_come_back(void **state)
{
    (void)state;
    uint32_t seed = (uint32_t)getpid();
    RandomKey k = {.seed = seed, .stream = STREAM_TEST};
    Config c, back;
    for (uint32_t i = 0; i < 50; i++) {
        config_default(&c);
        char text[64];
        snprintf(text, sizeof text, "%.17g", exp(-30 * random_uniform(k, 3 * i)));
        assert_int_equal(config_set(&c, "classifier.learning_rate", text, "--set"), OK);
        assert_true(c.classifier.learning_rate == strtod(text, NULL));
        snprintf(text, sizeof text, "%u", random_below(k, 3 * i + 1, 2147483647));
        assert_int_equal(
            config_assign(&c, "synthesis.negative_prompt= blurred; text=a|b: c#d \xc3\xa4 ",
                          "--set"),
            OK);
        assert_string_equal(c.synthesis.negative_prompt, "blurred; text=a|b: c#d \xc3\xa4");
        assert_int_equal(config_set(&c, "study.seed", text, "--set"), OK);
        assert_int_equal(config_set(&c, "data.source", "some where", "--set"), OK);
        write_and_read(&back, &c);
        assert_memory_equal(&c, &back, sizeof c);
    }
}

static void longest_text_comes_back(void **state)
{
    (void)state;
    Config c, back;
    config_default(&c);
    char text[200];
    memset(text, 'x', sizeof text);
    text[180] = 0; /* "negative_prompt = " and 180 characters are a line of 198 */
    assert_int_equal(config_set(&c, "synthesis.negative_prompt", text, "--set"), OK);
    write_and_read(&back, &c);
    assert_memory_equal(&c, &back, sizeof c);
    text[180] = 'x';
    text[181] = 0;
    assert_int_equal(config_set(&c, "synthesis.negative_prompt", text, "--set"), ERR_USAGE);
    assert_memory_equal(&c, &back, sizeof c);
}

static void files_are_read(void **state)
{
    (void)state;
    Config c;
    config_default(&c);
    assert_int_equal(
        read_text(&c, "\xef\xbb\xbf; comment\r\n# other = comment\r\n\r\n[ldm] ; here\r\n"
                      "learning_rate=2e-5\t; slower\r\nsteps =  7\r\n   ; indented comment\r\n"
                      "[study]\nname = a = b : c"),
        OK);
    assert_true(c.ldm.learning_rate == 2e-5 && c.ldm.steps == 7);
    assert_string_equal(c.study.name, "a = b : c");
    assert_int_equal(c.ldm.batch, 16);
}

static void each_mistake_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"[ldm]\nlearning_rte = 1",
         ":2: there is no setting ldm.learning_rte; did you mean ldm.learning_rate?"},
        {"[data]\n\nema_decay = 1",
         ":3: there is no setting data.ema_decay; did you mean ldm.ema_decay?"},
        {"[ldn]", ":1: there is no section [ldn]; did you mean [ldm]?"},
        {"[nowhere]", ":1: there is no section [nowhere]; there are study data"},
        {"[ldm]\nbatch = 0", ":2: ldm.batch = 0 is outside 1..4096 films"},
        {"[ldm]\nbatch = 16.5", "\"16.5\" is no whole number"},
        {"[ldm]\nbatch = 99999999999999999999", "is no whole number"},
        {"[ldm]\nbatch =", "\"\" is no whole number"},
        {"[ldm]\nlearning_rate = 1e-4x", "\"1e-4x\" is no number"},
        {"[ldm]\nlearning_rate = nan", "is no number"},
        {"[ldm]\nlearning_rate = 1e4", "is outside 0..1"},
        {"[classifier]\noptimizer = adam", "\"adam\" is none of sgd|adamw"},
        {"[classifier]\noptimizer = sgd|adamw", "is none of"},
        {"[classifier]\noptimizer =", "\"\" is none of"},
        {"[synthesis]\nprompt_a = lungs|",
         ":2: synthesis.prompt_a = \"lungs|\": text 2 is empty, expected one on each side of |"},
        {"[synthesis]\nprompt_normal = | lungs", "prompt_normal = \"| lungs\": text 1 is empty"},
        {"[synthesis]\n\nprompt_b = a| |b|",
         ":3: synthesis.prompt_b = \"a| |b|\": text 2 is empty"},
        {"[ldm]\nsteps = 5\nsteps = 6", ":3: ldm.steps is set here a second time"},
        {"[ldm]\n[data]\n[ldm]", ":3: section [ldm] stands here a second time"},
        {"[study]\nname = one\n  two", ":3: is indented"},
        {"[study]\nname = one # two", ":2: # starts no comment"},
        {"[study]\nname", ":2: found name, expected name = value"},
        {"[study]\nname : x", ":2: found name : x, expected name = value"},
        {"[study]\nname ; x = y\nfoo = 1", ":2: found name ; x = y, expected name = value"},
        {"[study]\nname = \x01", "holds a control character"},
        {"[study] name = x", ":1: found \"name = x\" behind [section]"},
        {"[study", ":1: found [study, expected [section]"},
        {"name = x", ":1: name stands before the first [section]"},
    };
    Config c, untouched;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        config_default(&c);
        config_default(&untouched);
        assert_int_equal(read_text(&c, bad[i].text), ERR_USAGE);
        if (!strstr(status_message(), bad[i].says))
            fail_msg("\"%s\" gave: %s", bad[i].text, status_message());
        assert_non_null(strstr(status_message(), "given.ini:"));
        assert_memory_equal(&c, &untouched, sizeof c);
    }
    assert_int_equal(config_read(&c, put("nul.ini", "[ldm]\nst\0ps = 5", 15)), ERR_USAGE);
    assert_non_null(strstr(status_message(), "nul.ini:2: holds a NUL byte"));
    char line[400];
    snprintf(line, sizeof line, "[study]\n%0250d", 0);
    assert_int_equal(read_text(&c, line), ERR_USAGE);
    assert_non_null(strstr(status_message(), ":2: has 250 characters, at most 198 are read"));
    assert_int_equal(config_read(&c, "/nowhere/at.ini"), ERR_INPUT);
}

/* Damaged files are refused or read; what was read comes back from its config.ini. */
static void any_bytes_are_survived(void **state)
{
    (void)state;
    static const char whole[] =
        "\xef\xbb\xbf[ldm] ; c\r\nsteps = 700\n\n# c\n[study]\nname = a b;c#d\n"
        "[data]\nsource = ../x\nnormal=n = m";
    static const char useful[] = "\n\r\t ;#[]=:.|\0 1e-\xef";
    int refused = 0;
    enum { N = 2000 };
    for (uint32_t i = 0; i < N; i++) {
        RandomKey k = {.seed = (uint32_t)getpid(), .stream = STREAM_TEST, .sample = i};
        char text[sizeof whole];
        memcpy(text, whole, sizeof whole);
        size_t size = sizeof whole - 1 - random_below(k, 0, 4);
        for (uint32_t n = random_below(k, 1, 4); n > 0; n--)
            text[random_below(k, 2 * n, (uint32_t)size)] =
                useful[random_below(k, 2 * n + 1, sizeof useful - 1)];
        Config c, back;
        config_default(&c);
        Status s = config_read(&c, put("damaged.ini", text, size));
        assert_true(s == OK || s == ERR_USAGE);
        refused += s != OK;
        if (s) continue;
        write_and_read(&back, &c);
        assert_memory_equal(&c, &back, sizeof c);
    }
    assert_true(refused > N / 8 && refused < N * 7 / 8);
}

static void set_shares_the_errors(void **state)
{
    (void)state;
    Config c;
    config_default(&c);
    assert_int_equal(config_assign(&c, "ldm.stps=3", "--set"), ERR_USAGE);
    assert_string_equal(status_message(),
                        "--set: there is no setting ldm.stps; did you mean ldm.steps?");
    assert_int_equal(config_assign(&c, "steps=3", "--set"), ERR_USAGE);
    assert_int_equal(config_assign(&c, "ldm.steps", "--set"), ERR_USAGE);
    assert_int_equal(config_assign(&c, "study.name=a ; b", "--set"), ERR_USAGE);
    assert_int_equal(config_assign(&c, "study.name=; b", "--set"), ERR_USAGE);
    assert_int_equal(config_assign(&c, "study.name=a\nb", "--set"), ERR_USAGE);
    assert_int_equal(config_assign(&c, "synthesis.prompt_a=", "--set"), OK); /* no prompt at all */
    assert_int_equal(config_assign(&c, "synthesis.prompt_b=a|b", "--set"), OK);
    assert_string_equal(c.synthesis.prompt_b, "a|b");
    assert_int_equal(config_assign(&c, "ldm.steps=3", "--set"), OK);
    assert_int_equal(c.ldm.steps, 3);
}

/* From the INI file's folder, from the working directory, or as they are. */
static void paths_start_where_they_stand(void **state)
{
    (void)state;
    Config c;
    char want[512], cwd[400];
    config_default(&c);
    assert_int_equal(read_text(&c, "[data]\nsource = ../films\n[ldm]\nbase = ./model\n"
                                   "[classifier]\nweights = /w.safetensors"),
                     OK);
    snprintf(want, sizeof want, "%s/../films", folder);
    assert_string_equal(c.data.source, want);
    snprintf(want, sizeof want, "%s/model", folder);
    assert_string_equal(c.ldm.base, want);
    assert_string_equal(c.classifier.weights, "/w.safetensors");
    assert_non_null(getcwd(cwd, sizeof cwd));
    assert_int_equal(config_assign(&c, "data.source=films", "--set"), OK);
    snprintf(want, sizeof want, "%s/films", cwd);
    assert_string_equal(c.data.source, want);
    assert_int_equal(config_assign(&c, "data.source=", "--set"), OK);
    assert_string_equal(c.data.source, "");
}

static void sections_have_no_paths(void **state)
{
    (void)state;
    Config c;
    Text data = {0}, evaluate = {0};
    config_default(&c);
    assert_int_equal(config_set(&c, "data.source", "/elsewhere", "--set"), OK);
    assert_int_equal(config_set(&c, "data.size", "128", "--set"), OK);
    config_section_text(&c, "data", &data);
    assert_null(strstr(data.s, "/elsewhere"));
    assert_non_null(strstr(data.s, "size = 128\n"));
    config_section_text(&c, "evaluate", &evaluate);
    assert_string_equal(evaluate.s, "replicates = 10000\npermutations = 10000\n");
    free(data.s);
    free(evaluate.s);
}

static void settings_are_tied(void **state)
{
    (void)state;
    static const struct {
        const char *set, *says;
    } bad[] = {
        {"classifier.aux_weight=.4", "Inception-V3's auxiliary head needs 299 px"},
        {"data.val_share=.5", "leave no patient for the test"},
        {"data.disease_b=bacteria", "three different classes"},
        {"data.normal=", "three different classes"},
        {"classifier.learning_rate=1e-6", "is above classifier.learning_rate"},
        {"ldm.steps=50", "is longer than ldm.steps"},
        {"ldm.prior_share=.05", "is no whole film"},
        {"synthesis.strength=.03", "is no whole step"},
    };
    Config c;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        config_default(&c);
        assert_int_equal(config_check(&c), OK);
        assert_int_equal(config_assign(&c, bad[i].set, "--set"), OK);
        assert_int_equal(config_check(&c), ERR_USAGE);
        if (!strstr(status_message(), bad[i].says))
            fail_msg("%s: %s", bad[i].set, status_message());
    }
    config_default(&c);
    assert_int_equal(config_assign(&c, "ldm.batch=2", "--set"), OK);
    assert_int_equal(config_assign(&c, "ldm.prior_share=.75", "--set"), OK); /* rounds to 2 */
    assert_int_equal(config_check(&c), ERR_USAGE);
    assert_non_null(strstr(status_message(), "leaves no film of the disease"));
    assert_int_equal(config_assign(&c, "ldm.prior_share=.5", "--set"), OK);
    assert_int_equal(config_check(&c), OK);
    assert_int_equal(config_assign(&c, "synthesis.strength=.03", "--set"), OK);
    assert_int_equal(config_check(&c), ERR_USAGE);
    assert_int_equal(config_assign(&c, "synthesis.mode=text-to-image", "--set"), OK);
    assert_int_equal(config_check(&c), OK);
}

/* Every default passes its own checks, and help names every setting with it. */
static void help_lists_every_setting(void **state)
{
    (void)state;
    static const char *const section[] = {"study", "data",        "classifier", "augment",
                                          "ldm",   "autoencoder", "synthesis",  "evaluate"};
    char *help = NULL;
    size_t size;
    FILE *f = open_memstream(&help, &size);
    config_help(f);
    fclose(f);
    Config c;
    config_default(&c);
    int n = 0;
    for (int i = 0; i < 8; i++) {
        Text t = {0};
        config_section_text(&c, section[i], &t);
        for (char *line = strtok(t.s, "\n"); line; line = strtok(NULL, "\n"), n++) {
            Text want = {0}, assignment = {0};
            text_add(&want, "\n  %s", line);
            const char *at = help;
            while ((at = strstr(at, want.s)) && !strchr(" \n", at[want.n])) at++;
            if (!at) fail_msg("no help for %s.%s", section[i], line);
            text_add(&assignment, "%s.%s", section[i], line);
            assert_int_equal(config_assign(&c, assignment.s, "default"), OK);
            free(want.s);
            free(assignment.s);
        }
        free(t.s);
    }
    assert_true(n > 80);
    assert_non_null(strstr(help, "  source =  "));
    free(help);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return (int)dir_remove(folder);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_stand_and_come_back),
        cmocka_unit_test(values_come_back),
        cmocka_unit_test(longest_text_comes_back),
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(each_mistake_is_named),
        cmocka_unit_test(any_bytes_are_survived),
        cmocka_unit_test(set_shares_the_errors),
        cmocka_unit_test(paths_start_where_they_stand),
        cmocka_unit_test(sections_have_no_paths),
        cmocka_unit_test(settings_are_tied),
        cmocka_unit_test(help_lists_every_setting),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
