/* test_base.c - random numbers, files, text and tables. */
#include "base/csv.h"
#include "base/folder.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

/* The known answers of Random123's kat_vectors for philox4x32, 10 rounds. */
static void philox_known_answers(void **state)
{
    (void)state;
    static const uint32_t known[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        philox4x32_10(out, known[i], known[i] + 4);
        assert_memory_equal(out, known[i] + 6, sizeof out);
    }
}

static void normals_have_their_moments(void **state)
{
    (void)state;
    enum { N = 200001 };
    float *z = malloc(N * sizeof *z);
    RandomKey k = {.seed = 7, .stream = STREAM_TEST, .step = 3, .sample = 1ull << 40};
    random_normals(z, N, k);
    double m1 = 0, m2 = 0, m4 = 0;
    for (int i = 0; i < N; i++) {
        m1 += z[i] / (double)N;
        m2 += pow(z[i], 2) / N;
        m4 += pow(z[i], 4) / N;
    }
    assert_true(fabs(m1) < 5 / sqrt(N)); /* five standard errors each */
    assert_true(fabs(m2 - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(m4 - 3) < 5 * sqrt(96.0 / N));
    for (uint32_t i = 0; i < 1000; i++) assert_true(z[i] == (float)random_normal(k, i));
    free(z);
}

/* n parts, joined by '/'. */
static void check_parts(const char *s, int n, const char *joined)
{
    char **part, all[64] = "";
    assert_int_equal(text_parts(&part, s), n);
    for (int i = 0; i < n; i++) strcat(strcat(all, i ? "/" : ""), part[i]);
    assert_string_equal(all, joined);
    free(part);
}

static void parts_are_cut(void **state)
{
    (void)state;
    check_parts("", 1, "");
    check_parts("  ", 1, "");
    check_parts(" a b ", 1, "a b");
    check_parts("a |  b c|d", 3, "a/b c/d");
    check_parts("a|", 2, "a/");
    check_parts("| |", 3, "//");
}

static void permutation_is_one(void **state)
{
    (void)state;
    static const uint32_t size[] = {1, 2, 3, 5, 16, 17, 1000, 4097};
    for (int s = 0; s < 8; s++) {
        char *hit = calloc(size[s], 1);
        uint32_t fixed = 0;
        for (uint32_t i = 0; i < size[s]; i++) {
            uint32_t to =
                random_permute((RandomKey){.seed = 1, .stream = STREAM_SHUFFLE}, i, size[s]);
            assert_true(to < size[s] && !hit[to]);
            hit[to] = 1;
            fixed += to == i;
        }
        if (size[s] > 100) assert_true(fixed < size[s] / 20);
        free(hit);
    }
}

static char *scratch(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "/tmp/test_base-%ld/%s", (long)getpid(), name);
    return path;
}

/* The disk of a path that is not there is that of the folder it would lie in. */
static void free_space_of_absent_paths(void **state)
{
    (void)state;
    static const char *const path[] = {".", "absent/at/all", "absent"};
    for (int i = 0; i < 3; i++) {
        uint64_t bytes = 0;
        assert_int_equal(disk_free(&bytes, path[i]), OK);
        assert_true(bytes > 0);
    }
    uint64_t none = 1;
    assert_int_equal(disk_free(&none, "/proc/absent/deeper"), OK);
    assert_int_equal(none, 0);
}

static void write_is_whole_or_absent(void **state)
{
    (void)state;
    OutFile o;
    char *path = strdup(scratch("deep/er/file")), *data;
    size_t size;
    assert_int_equal(out_open(&o, path), OK);
    assert_int_equal(out_printf(&o, "%s", "half"), OK);
    assert_false(file_exists(path));
    out_abandon(&o);
    assert_false(file_exists(path));
    assert_int_equal(file_write(path, "whole", 5), OK);
    assert_int_equal(file_read(&data, &size, path, 100), OK);
    assert_string_equal(data, "whole");
    free(data);
    assert_int_equal(file_read(&data, &size, path, 4), ERR_INPUT);
    assert_int_equal(file_read(&data, &size, "/dev/zero", 4), ERR_INPUT);
    char *copy = strdup(scratch("copy")), *large = calloc(1, 200001);
    for (int i = 0; i < 200001; i++) large[i] = (char)(i * 31);
    assert_int_equal(file_write(path, large, 200001), OK);
    assert_int_equal(file_copy(path, copy), OK);
    assert_int_equal(file_read(&data, &size, copy, 200001), OK);
    assert_int_equal(size, 200001);
    assert_memory_equal(data, large, size);
    free(data);
    free(large);
    assert_int_equal(file_copy("/dev/zero", copy), ERR_INPUT);
    assert_int_equal(file_copy(path, "/dev/full/x"), ERR_INPUT);
    free(copy);
    assert_int_equal(file_write("/dev/full/x", "y", 1), ERR_INPUT);
    const char *pipe = scratch("pipe");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(out_open(&o, pipe), ERR_INPUT);
    assert_non_null(strstr(status_message(), "found a device, pipe or socket"));
    char hex[HASH_TEXT];
    hash_bytes(hex, "abc", 3);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(dir_remove(scratch("")), OK);
    free(path);
}

static void long_messages_end_at_a_word(void **state)
{
    (void)state;
    char text[3000];
    for (size_t i = 0; i < sizeof text; i++) text[i] = i % 7 ? 'x' : ' ';
    text[sizeof text - 1] = 0;
    FAIL(ERR_INPUT, "%s", text);
    size_t n = strlen(status_message());
    assert_in_range(n, 1000, 1023);
    assert_string_equal(status_message() + n - 10, "xxxxxx ...");
    memset(text, 'x', sizeof text - 1); /* nowhere to cut */
    FAIL(ERR_INPUT, "%s", text);
    n = strlen(status_message());
    assert_in_range(n, 1000, 1023);
    assert_string_equal(status_message() + n - 5, "xx...");
    FAIL(ERR_INPUT, "%.1023s", text); /* has room */
    assert_int_equal(strlen(status_message()), 1023);
    assert_non_null(strstr(status_message() + 1000, "xxxxx"));
}

/* A failure and that it has been told outlast what is done before it is returned; no failure hides none. */
static void failures_are_kept(void **state)
{
    (void)state;
    Failure first, none;
    status_keep(&none, OK);
    FAIL(ERR_PEER, "rank 1 died");
    status_trace(ERR_PEER, "a.c", 7);
    for (int told = 0; told < 2; told++) {
        if (told) status_mark_said();
        status_keep(&first, ERR_PEER);
        FAIL(ERR_INPUT, "a leftover cannot be removed");
        if (!told) status_mark_said();
        assert_int_equal(status_restore(&none), OK);
        assert_string_equal(status_message(), "a leftover cannot be removed");
        assert_int_equal(status_restore(&first), ERR_PEER);
        assert_string_equal(status_message(), "rank 1 died");
        assert_non_null(strstr(status_trace_text(), "test_base.c"));
        assert_non_null(strstr(status_trace_text(), "  at a.c:7\n"));
        assert_int_equal(status_said(), told);
    }
}

/* Only what our writers may have left: a real film may have a name like theirs. */
static void leftovers_are_swept(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool left;
    } file[] = {{"scan.tmp-3.png", false},
                {"scan.tmp-", false},
                {"scan.tmp-x1", false},
                {"tmp-12", false},
                {"images.tmp-3b/film.png", false},
                {"images/film.png", false},
                {"images/film.png.tmp-4711", true},
                {"model.tmp-8/unet/weights", true},
                {"model.tmp-8/unet/weights.tmp-8", true},
                {"images.tmp-3b/.tmp-1", true}};
    enum { N = sizeof file / sizeof *file };
    for (int i = 0; i < N; i++) assert_int_equal(file_write(scratch(file[i].name), "x", 1), OK);
    file_sweep_temps(scratch(""));
    for (int i = 0; i < N; i++)
        if (file_exists(scratch(file[i].name)) == file[i].left)
            fail_msg("%s was %s", file[i].name, file[i].left ? "kept" : "removed");
    assert_false(file_exists(scratch("model.tmp-8")));
    assert_int_equal(dir_remove(scratch("")), OK);
}

static void csv_of(const char *text, size_t n, Status want, const char *message)
{
    Csv c;
    char *path = strdup(scratch("t.csv"));
    assert_int_equal(file_write(path, text, n), OK);
    assert_int_equal(csv_read(&c, path), want);
    if (want) assert_non_null(strstr(status_message(), message));
    csv_free(&c);
    dir_remove(scratch(""));
    free(path);
}

static void csv_accepts_and_refuses(void **state)
{
    (void)state;
    Csv c;
    char *path = strdup(scratch("t.csv"));
    const char *good = "\xef\xbb\xbfid,text\r\n1,\"a,\"\"b\nc\"\r\n2,plain";
    assert_int_equal(file_write(path, good, strlen(good)), OK);
    assert_int_equal(csv_read(&c, path), OK);
    assert_int_equal(c.n_row, 2);
    assert_string_equal(csv_at(&c, 0, 1), "a,\"b\nc");
    assert_string_equal(csv_at(&c, 1, 1), "plain");
    assert_int_equal(c.line[1], 4);
    int col;
    assert_int_equal(csv_need(&col, &c, "txet"), ERR_INPUT);
    csv_free(&c);
    free(path);
    csv_of("a,b\n1\n", 6, ERR_INPUT, ":2: 1 fields, expected 2");
    csv_of("a,a\n", 4, ERR_INPUT, "twice");
    csv_of("a\n\"x", 4, ERR_INPUT, "never closed");
    csv_of("a\0b\n", 4, ERR_INPUT, "NUL");
    csv_of("\xff\xfe" "a", 3, ERR_INPUT, "UTF-16");
    csv_of("", 0, ERR_INPUT, "empty");
}

static void nearest_name(void **state)
{
    (void)state;
    static const char *const names[] = {"learning_rate", "batch", "steps"};
    assert_string_equal(text_nearest("learning_rte", names, 3), "learning_rate");
    assert_string_equal(text_nearest("bacth", names, 3), "batch");
    assert_null(text_nearest("colour", names, 3));
    double v;
    assert_true(text_to_double(&v, "1e-4"));
    assert_false(text_to_double(&v, "1e-4x"));
    assert_false(text_to_double(&v, "nan"));
    assert_false(text_to_double(&v, "1,5"));
}

/* No line is longer than it may be but for a word that is, none ends in a blank. */
static void help_is_wrapped(void **state)
{
    (void)state;
    Text t = {0};
    char words[400] = "", wide[TEXT_COLUMNS + 2] = "";
    for (int i = 0; i < 30; i++) strcat(words, i % 3 ? "of it " : "numbers ");
    memset(wide, 'w', sizeof wide - 1);
    text_add_help(&t, "--short N", 31, words);
    text_add_help(&t, "--an-option-beyond-the-column N", 31, "below\nand below that");
    text_add_wrapped(&t, wide, 0, 2);
    assert_int_equal(strncmp(t.s, "  --short N                    numbers of it of it", 50), 0);
    assert_non_null(strstr(t.s, "\n                               of it"));
    assert_non_null(strstr(t.s, "\n  --an-option-beyond-the-column N\n"
                                "                               below\n"
                                "                               and below that\n"));
    for (char *line = strtok(t.s, "\n"); line; line = strtok(NULL, "\n")) {
        size_t n = strlen(line);
        assert_true(line[n - 1] != ' ');
        if (n > TEXT_COLUMNS) assert_string_equal(line, wide);
    }
    free(t.s);
}

static Log *captured_log(int *kept, const char *path)
{
    fflush(stderr);
    *kept = dup(STDERR_FILENO);
    assert_non_null(freopen(path, "w", stderr));
    return log_new(false);
}

static void release_log(Log *l, int kept)
{
    log_free(l);
    fflush(stderr);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
}

/* What a file says reaches the terminal on one line and without its control characters; the record has it. */
static void log_lines_are_tame(void **state)
{
    (void)state;
    char dir[] = "/tmp/eq-log-XXXXXX", *said, *told;
    size_t n;
    int kept;
    assert_non_null(mkdtemp(dir));
    char *path = path_join(dir, "stderr"), *record = path_join(dir, "log.jsonl");
    Log *l = captured_log(&kept, path);
    log_file(l, record);
    log_warn(l, "tensor \"%s\"", "w\x1b[2J\nequipoise: fine\x7f");
    log_info(l, "\xc3\xa9\r%s", "x");
    log_progress(l, "a\x1b[2Jb", 1, 2, NULL);
    release_log(l, kept);
    assert_int_equal(file_read(&said, &n, path, 1000), OK);
    assert_string_equal(said, "warning: tensor \"w?[2J?equipoise: fine?\"\n\xc3\xa9?x\n"
                              "  a?[2Jb 1/2\n");
    assert_int_equal(file_read(&told, &n, record, 1000), OK);
    assert_non_null(strstr(told, "w\\u001b[2J\\u000aequipoise: fine"));
    free(said);
    free(told);
    free(path);
    free(record);
    assert_int_equal(dir_remove(dir), OK);
}

/* Ranks write into one pipe: a line in pieces would mix with another's. A pipe of packets gives each write. */
static void log_lines_are_written_whole(void **state)
{
    (void)state;
    const char *want[] = {"warning: w\n", "i\n", "  p 1/2  note\n", "equipoise: why\n"};
    int ends[2], kept = dup(STDERR_FILENO);
    char got[200];
    assert_int_equal(pipe2(ends, O_DIRECT | O_NONBLOCK), 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    Log *l = log_new(false);
    log_warn(l, "%s", "w");
    log_info(l, "i");
    log_progress(l, "p", 1, 2, "note");
    log_progress_end(l);
    log_failure(l, "why", "");
    release_log(l, kept);
    for (int i = 0; i < 4; i++) {
        ssize_t n = read(ends[0], got, sizeof got);
        assert_int_equal(n, strlen(want[i]));
        assert_memory_equal(got, want[i], n);
    }
    assert_int_equal(read(ends[0], got, sizeof got), -1);
    close(ends[0]);
    close(ends[1]);
}

/* Beside the final name, whether that ends in a slash or not; nothing is left of a failure but its line. */
static void folders_are_whole_or_absent(void **state)
{
    (void)state;
    char dir[] = "/tmp/eq-folder-XXXXXX", want[64];
    assert_non_null(mkdtemp(dir));
    for (int slashes = 0; slashes < 3; slashes++) {
        char out[64];
        snprintf(want, sizeof want, "%s/%d", dir, slashes);
        snprintf(out, sizeof out, "%s%s", want, &"//"[2 - slashes]);
        for (int fails = 1; fails >= 0; fails--) {
            char *temp = folder_begin(out), *file = path_join(temp, "file");
            assert_int_equal(strncmp(temp, want, strlen(want)), 0);
            assert_int_equal(strncmp(temp + strlen(want), ".tmp-", 5), 0);
            assert_int_equal(file_write(file, "x", 1), OK);
            free(file);
            Status s = fails ? FAIL(ERR_INPUT, "why") : OK;
            assert_int_equal(folder_end(s, temp, out), s);
            assert_true(dir_exists(want) == !fails);
            if (fails) assert_string_equal(status_message(), "why");
        }
        char *file = path_join(want, "file");
        assert_true(file_exists(file));
        free(file);
    }
    DirList list;
    assert_int_equal(dir_list(&list, dir), OK);
    assert_int_equal(list.n, 3);
    dir_list_free(&list);
    assert_int_equal(dir_remove(dir), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_cut),
        cmocka_unit_test(philox_known_answers),     cmocka_unit_test(normals_have_their_moments),
        cmocka_unit_test(permutation_is_one),       cmocka_unit_test(write_is_whole_or_absent),
        cmocka_unit_test(long_messages_end_at_a_word),
        cmocka_unit_test(csv_accepts_and_refuses),  cmocka_unit_test(nearest_name),
        cmocka_unit_test(free_space_of_absent_paths), cmocka_unit_test(help_is_wrapped),
        cmocka_unit_test(log_lines_are_tame),       cmocka_unit_test(log_lines_are_written_whole),
        cmocka_unit_test(folders_are_whole_or_absent),
        cmocka_unit_test(leftovers_are_swept),      cmocka_unit_test(failures_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
