/* test_options.c - the command line of a command. */
#include "app/options.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const Option option[] = {
    {"out", "DIR", "where it goes", NULL},
    {"seed", "N", "of all draws", "7"},
    {"threshold", "T", "positive above", "0.5"},
    {"grad", NULL, "backward too", NULL},
};
static const Usage plain = {"try", "FORMAT SOURCE", "Tries.", 1, 2, option, 4, false};
static const Usage with_config = {"try", "CONFIG", "Tries.", 1, 1, option, 4, true};

/* words: a command line, split at blanks */
static Status parse(Options *o, const Usage *u, const char *words)
{
    static char text[512], *argv[32]; /* static: o points into them */
    int argc = 0;
    snprintf(text, sizeof text, "%s", words);
    for (char *w = strtok(text, " "); w; w = strtok(NULL, " ")) argv[argc++] = w;
    argv[argc] = NULL;
    return options_parse(o, u, argc, argv);
}

static void options_and_arguments_mix(void **state)
{
    (void)state;
    Options o;
    int seed;
    double threshold;
    const char *out;
    assert_int_equal(parse(&o, &plain, "try kermany --seed=9 folder --grad --out a --out b"), OK);
    assert_int_equal(o.n_argument, 2);
    assert_string_equal(o.argument[0], "kermany");
    assert_string_equal(o.argument[1], "folder");
    assert_true(options_has(&o, "grad") && !options_has(&o, "threshold") && !o.helped);
    assert_int_equal(options_int(&seed, &o, "seed", 0, 9), OK);
    assert_int_equal(seed, 9);
    assert_int_equal(options_real(&threshold, &o, "threshold", 0, 1), OK);
    assert_true(threshold == .5);
    assert_int_equal(options_need(&out, &o, "out"), OK);
    assert_string_equal(out, "b");
    assert_string_equal(options_each(&o, "out", 0), "a");
    assert_null(options_each(&o, "out", 2));
    assert_int_equal(parse(&o, &plain, "try -- --grad"), OK);
    assert_string_equal(o.argument[0], "--grad");
    assert_int_equal(options_need(&out, &o, "out"), ERR_USAGE);
    assert_string_equal(status_message(), "try: --out is missing");
}

static void each_mistake_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *words, *says;
    } bad[] = {
        {"try a --sed 3", "try: there is no option --sed; did you mean --seed?"},
        {"try a --tresholt=3", "try: there is no option --tresholt=3; did you mean --threshold?"},
        {"try a --set study.seed=3", "try: there is no option --set;"}, /* takes no config */
        {"try a --colour", "try: there is no option --colour; see equipoise try --help"},
        {"try a -xh", "try: there is no option -x;"},
        {"try a --out", "try: --out needs a value"},
        {"try a --grad=1", "try: --grad=1 takes no value"},
        {"try a b c", "try: found \"c\", expected no more than FORMAT SOURCE"},
        {"try --grad", "try: found 0 of its arguments, expected FORMAT SOURCE"},
        {"try a --out=", "try: --out is \"\", expected DIR"},
    };
    Options o;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(parse(&o, &plain, bad[i].words), ERR_USAGE);
        if (strncmp(status_message(), bad[i].says, strlen(bad[i].says)))
            fail_msg("%s: %s", bad[i].words, status_message());
    }
    assert_int_equal(options_parse(&o, &plain, 2, (char *[]){"try", "", NULL}), ERR_USAGE);
    assert_string_equal(status_message(), "try: found an empty argument, expected FORMAT SOURCE");
    int seed;
    double threshold;
    assert_int_equal(parse(&o, &plain, "try a --seed 3x --threshold 1.5"), OK);
    assert_int_equal(options_int(&seed, &o, "seed", 0, 9), ERR_USAGE);
    assert_int_equal(options_real(&threshold, &o, "threshold", 0, 1), ERR_USAGE);
    assert_string_equal(status_message(), "try: --threshold is \"1.5\", expected a number in 0..1");
}

static Status out(const char *words, const char *end, const char *input)
{
    static const Option files[] = {{"out", "FILE", "it", NULL}, {"force", NULL, "over it", NULL}};
    static const Usage usage = {"try", NULL, "Tries.", 0, 0, files, 2, false};
    Options o;
    const char *path;
    assert_int_equal(parse(&o, &usage, words), OK);
    return options_out(&path, &o, "out", end, 2, (const char *[]){NULL, input});
}

static void outputs_are_checked_before_work(void **state)
{
    (void)state;
    static const struct {
        const char *words, *end, *input;
        Status expected;
        const char *says;
    } row[] = {
        {"try", ".png", "there.png", OK, ""},
        {"try --out new", "", "there.png", OK, ""},
        {"try --out new.png", ".png", "there.png", OK, ""},
        {"try --out sub/new.PNG", ".png", NULL, OK, ""},
        {"try --out new.jpg", ".png", NULL, ERR_USAGE, "expected the name of a .png file"},
        {"try --out new.png/", ".png", NULL, ERR_USAGE, "expected the name of a .png file"},
        {"try --out .png", ".png", NULL, ERR_USAGE, "expected the name of a .png file"},
        {"try --out new/", "", NULL, ERR_USAGE, "expected the name of a file"},
        {"try --out there.png", "", NULL, ERR_USAGE, "there.png: is there, expected a new file"},
        {"try --out there.png --force", "", "link", ERR_USAGE, "which is read, expected another"},
        {"try --out there.png --force", ".png", "other", OK, ""},
        {"try --out . --force", "", NULL, ERR_INPUT, ".: found a folder, expected a file"},
        {"try --out there.png/new", "", NULL, ERR_INPUT, "expected a folder to write into"},
        {"try --out /dev/null --force", "", NULL, ERR_INPUT, "found a device"},
    };
    char folder[] = "/tmp/eq-options-XXXXXX";
    assert_true(mkdtemp(folder) && !chdir(folder));
    assert_int_equal(file_write("there.png", "x", 1), OK);
    assert_int_equal(file_write("other", "x", 1), OK);
    assert_int_equal(symlink("there.png", "link"), 0);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        Status got = out(row[i].words, row[i].end, row[i].input);
        if (got != row[i].expected || (got && !strstr(status_message(), row[i].says)))
            fail_msg("%s: %d %s", row[i].words, got, got ? status_message() : "");
    }
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(dir_remove(folder), OK);
}

static void config_takes_file_then_sets(void **state)
{
    (void)state;
    static const char ini[] = "[ldm]\nsteps = 500\nbatch = 3\n";
    char folder[] = "/tmp/eq-options-XXXXXX", path[64], words[128];
    Options o;
    Config c;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.ini", folder);
    assert_int_equal(file_write(path, ini, strlen(ini)), OK);
    snprintf(words, sizeof words, "try --set ldm.steps=600 %s --set ldm.steps=700", path);
    assert_int_equal(parse(&o, &with_config, words), OK);
    assert_int_equal(options_config(&c, &o), OK);
    assert_int_equal(c.ldm.steps, 700);
    assert_int_equal(c.ldm.batch, 3);
    snprintf(words, sizeof words, "try %s --set ldm.steps=5", path);
    assert_int_equal(parse(&o, &with_config, words), OK);
    assert_int_equal(options_config(&c, &o), ERR_USAGE); /* shorter than its warm-up */
    snprintf(words, sizeof words, "try %s --set ldm.step=5", path);
    assert_int_equal(parse(&o, &with_config, words), OK);
    assert_int_equal(options_config(&c, &o), ERR_USAGE);
    assert_string_equal(status_message(),
                        "--set: there is no setting ldm.step; did you mean ldm.steps?");
    assert_int_equal(c.ldm.steps, 700); /* a failure leaves it alone */
    assert_int_equal(dir_remove(folder), OK);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_and_arguments_mix),
        cmocka_unit_test(each_mistake_is_named),
        cmocka_unit_test(outputs_are_checked_before_work),
        cmocka_unit_test(config_takes_file_then_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
