/* report_page.h - what tests of the report share: a run made anew for each test, and its page. */
#ifndef REPORT_PAGE_H
#define REPORT_PAGE_H
#include "ref/example_run.h"
#include "report/report.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    char folder[64]; /* of a run, below a folder of its own */
    Log *log;
    uint32_t seed;
} Fixture;

static inline int open_fixture(void **state)
{
    Fixture *f = calloc(1, sizeof *f);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    f->seed = (uint32_t)now.tv_nsec ^ (uint32_t)now.tv_sec;
    print_message("seed %u\n", f->seed);
    const char *base =
        access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm"; /* in memory: the program syncs */
    snprintf(f->folder, sizeof f->folder, "%s/eq_report_XXXXXX", base);
    assert_non_null(mkdtemp(f->folder));
    strcat(f->folder, "/run");
    f->log = log_new(true);
    example_run(f->folder, f->seed);
    *state = f;
    return 0;
}

static inline int close_fixture(void **state)
{
    Fixture *f = *state;
    *strrchr(f->folder, '/') = 0;
    assert_int_equal(dir_remove(f->folder), OK);
    log_free(f->log);
    free(f);
    return 0;
}

static inline char *read_page(const char *folder)
{
    char *path = path_join(folder, "report.html"), *data = NULL;
    size_t size;
    if (file_read(&data, &size, path, 64 << 20)) fail_msg("%s", status_message());
    char *page = strndup(data, size);
    assert_int_equal(strlen(page), size);
    free(data);
    free(path);
    return page;
}

static inline char *make_page(const Fixture *f)
{
    if (report_write(f->folder, f->log)) fail_msg("%s", status_message());
    return read_page(f->folder);
}

static inline void must_hold(const char *page, const char *text)
{
    if (!strstr(page, text)) fail_msg("not in the page: %s", text);
}

/* Pictures are left out: by chance their base64 spells anything. */
static inline void must_not_hold(const char *page, const char *text)
{
    const char *mark = "base64,";
    char *words = strdup(page), *to = words;
    for (const char *c = page; *c;) {
        if (!strncmp(c, mark, strlen(mark))) c += strcspn(c, "\"");
        *to++ = *c++;
    }
    *to = 0;
    if (strstr(words, text)) fail_msg("in the page: %.80s", strstr(words, text));
    free(words);
}

static inline double number_of(const json_t *object, const char *key)
{
    assert_true(json_is_number(json_object_get(object, key)));
    return json_number_value(json_object_get(object, key));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)
#endif
