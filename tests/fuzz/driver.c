/* driver.c - the loop of the fuzzer: choose, mutate, run, keep. */
#include "base/file.h"
#include "base/random.h"
#include "fuzz/fuzz.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_INPUT = 1 << 16, MAX_SEEDS = 4096, MAX_STACK = 6, HANG_S = 10 };

typedef struct {
    unsigned char *data;
    size_t size;
} Input;

static struct {
    Input seed[MAX_SEEDS];
    int n;
    uint64_t seen[MAX_SEEDS];
    int n_seen;
    RandomKey key;
    uint32_t drawn;
    const unsigned char *now; /* what runs */
    size_t now_size;
} fuzz;

/* ---- findings ------------------------------------------------------------------------------ */

static void save_input(void)
{
    char path[64];
    snprintf(path, sizeof path, "fuzz-%s.bin", fuzz_name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) return;
    if (write(fd, fuzz.now, fuzz.now_size) < 0) fputs("cannot write the input\n", stderr);
    close(fd);
    fprintf(stderr, "finding: the input is in %s\n", path);
}

static void on_signal(int number)
{
    save_input();
    signal(number, SIG_DFL);
    raise(number);
}

/* Reports of the sanitizers end in abort(), which comes here. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "abort_on_error=1:allocator_may_return_null=1:max_allocation_size_mb=2048";
}
__attribute__((visibility("default"))) const char *__ubsan_default_options(void)
{
    return "abort_on_error=1:print_stacktrace=1";
}

static void finding(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, status_message());
    save_input();
    exit(1);
}

/* ---- mutations ----------------------------------------------------------------------------- */

static uint32_t draw(uint32_t below) { return random_below(fuzz.key, fuzz.drawn++, below); }

static size_t insert(unsigned char *d, size_t n, size_t at, const void *what, size_t m)
{
    if (n + m > MAX_INPUT) return n;
    unsigned char copy[256];
    if (m > sizeof copy) m = sizeof copy;
    memcpy(copy, what, m);
    memmove(d + at + m, d + at, n - at);
    memcpy(d + at, copy, m);
    return n + m;
}

static size_t cut(unsigned char *d, size_t n, size_t at, size_t m)
{
    if (m > n - at) m = n - at;
    memmove(d + at, d + at + m, n - at - m);
    return n - m;
}

/* Another number in place of one in the text. */
static size_t change_number(unsigned char *d, size_t n, size_t at)
{
    static const char *const number[] = {"-1",
                                         "0",
                                         "1",
                                         "2147483648",
                                         "4294967296",
                                         "0.5",
                                         "1e400",
                                         "9223372036854775807",
                                         "18446744073709551615",
                                         "65537",
                                         "1e-320",
                                         "4611686018427387904",
                                         "576460752303423488",
                                         "-0",
                                         "null",
                                         "true",
                                         "\"x\"",
                                         "[]",
                                         "{}"};
    size_t from = at, to;
    while (from < n && (d[from] < '0' || d[from] > '9')) from++;
    for (to = from; to < n && to < from + 24 && d[to] >= '0' && d[to] <= '9';) to++;
    if (from == n) return n;
    const char *text = number[draw(sizeof number / sizeof *number)];
    n = cut(d, n, from, to - from);
    return insert(d, n, from, text, strlen(text));
}

static size_t mutate_once(unsigned char *d, size_t n)
{
    static const unsigned char telling[] = {0,   1,   0x7f, 0x80, 0xff, '"', '\\', '{',  '}', '[',
                                            ']', ',', ':',  '-',  '.',  '9', ' ',  '\n', '/', 'e'};
    size_t at = n ? draw((uint32_t)n) : 0, m = 1 + draw(1 + draw(48));
    const Input *other = &fuzz.seed[draw((uint32_t)fuzz.n)];
    unsigned char bytes[48];
    if (!n) return insert(d, 0, 0, telling, 1 + draw(sizeof telling - 1));
    switch (draw(10)) {
    case 0:
        d[at] ^= (unsigned char)(1u << draw(8));
        return n;
    case 1:
        d[at] = telling[draw(sizeof telling)];
        return n;
    case 2:
        d[at] = (unsigned char)draw(256);
        return n;
    case 3:
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = draw(2) ? telling[draw(sizeof telling)] : (unsigned char)draw(256);
        return insert(d, n, at, bytes, m < sizeof bytes ? m : sizeof bytes);
    case 4:
        return cut(d, n, at, m);
    case 5: /* repeated */
        return insert(d, n, at, d + at, m < n - at ? m : n - at);
    case 6:
        return draw(4) ? change_number(d, n, at) : at; /* or cut off */
    case 7: {                                          /* a length, little endian */
        uint64_t length = (uint64_t)1 << draw(64);
        length += (uint64_t)draw(3) - 1;
        for (size_t i = 0; i < 8 && at + i < n; i++) d[at + i] = (unsigned char)(length >> 8 * i);
        return n;
    }
    case 8: { /* a piece of another seed */
        if (!other->size) return n;
        size_t from = draw((uint32_t)other->size);
        return insert(d, n, at, other->data + from,
                      m < other->size - from ? m : other->size - from);
    }
    default: { /* two pieces change places */
        size_t b = draw((uint32_t)n);
        for (size_t i = 0; i < m && at + i < n && b + i < n; i++) {
            unsigned char c = d[at + i];
            d[at + i] = d[b + i];
            d[b + i] = c;
        }
        return n;
    }
    }
}

/* ---- the loop ------------------------------------------------------------------------------ */

void fuzz_add(const void *data, size_t size)
{
    if (fuzz.n == MAX_SEEDS || size > MAX_INPUT) return;
    Input *i = &fuzz.seed[fuzz.n++];
    *i = (Input){malloc(size + 1), size};
    CHECK(i->data);
    memcpy(i->data, data, size);
}

void fuzz_add_file(const char *path, unsigned char kind)
{
    char *data;
    size_t size;
    if (file_read(&data, &size, path, MAX_INPUT - 1))
        check_failed(status_message(), __FILE__, __LINE__);
    unsigned char *all = malloc(size + 1);
    CHECK(all);
    *all = kind;
    memcpy(all + 1, data, size);
    fuzz_add(all, size + 1);
    free(all);
    free(data);
}

void fuzz_put(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
}

/* True at the first failure in this place: what a seed must have to be kept. */
static bool is_new(Status s)
{
    const char *text = s ? status_trace_text() : "ok";
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    for (int i = 0; i < fuzz.n_seen; i++)
        if (fuzz.seen[i] == hash) return false;
    if (fuzz.n_seen < MAX_SEEDS) fuzz.seen[fuzz.n_seen++] = hash;
    return true;
}

static bool run(const unsigned char *data, size_t size)
{
    fuzz.now = data;
    fuzz.now_size = size;
    alarm(HANG_S);
    Status s = fuzz_one(data, size);
    alarm(0);
    if (s != OK && s != ERR_INPUT && s != ERR_SPACE) finding("found a failure of another class");
    if (s && strpbrk(status_message(), "\n\r")) finding("found a message of several lines");
    return is_new(s);
}

static long loop(double seconds)
{
    static unsigned char input[MAX_INPUT];
    struct timespec from, now;
    long n = 0;
    clock_gettime(CLOCK_MONOTONIC, &from);
    int given = fuzz.n;
    for (int i = 0; i < given; i++) run(fuzz.seed[i].data, fuzz.seed[i].size);
    do {
        fuzz.key.step = (uint32_t)n;
        fuzz.drawn = 0;
        /* half of them from what was given, half from what was kept as well */
        const Input *from_seed = &fuzz.seed[draw((uint32_t)(draw(2) ? given : fuzz.n))];
        size_t size = from_seed->size;
        memcpy(input, from_seed->data, size);
        for (uint32_t k = 1 + draw(MAX_STACK); k; k--) size = mutate_once(input, size);
        if (draw(2)) fuzz_repair(input, size);
        if (run(input, size)) fuzz_add(input, size);
        n++;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((double)(now.tv_sec - from.tv_sec) + 1e-9 * (double)(now.tv_nsec - from.tv_nsec) <
             seconds);
    return n;
}

static int run_again(const char *path)
{
    char *data;
    size_t size;
    if (file_read(&data, &size, path, MAX_INPUT)) {
        fprintf(stderr, "%s\n", status_message());
        return 1;
    }
    Status s = fuzz_one((unsigned char *)data, size);
    printf("%s\n", s ? status_message() : "accepted");
    free(data);
    return 0;
}

int main(int argc, char **argv)
{
    const char *seconds = getenv("FUZZ_SECONDS"), *seed = getenv("FUZZ_SEED");
    char folder[64];
    snprintf(folder, sizeof folder, "%s/fuzz-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(folder)) return 1;
    fuzz.key =
        (RandomKey){.seed = (uint32_t)(seed ? strtoul(seed, NULL, 10) : (unsigned long)time(NULL)),
                    .stream = STREAM_TEST};
    signal(SIGABRT, on_signal);
    signal(SIGALRM, on_signal);
    signal(SIGSEGV, on_signal);
    signal(SIGBUS, on_signal);
    signal(SIGFPE, on_signal);
    fuzz_seeds(folder);
    int code = 0;
    if (argc > 1) {
        code = run_again(argv[1]);
    } else {
        int given = fuzz.n;
        long n = loop(seconds ? atof(seconds) : 60);
        printf("%s: seed %u, %ld executions from %d seeds, %d places of failure, 0 findings\n",
               fuzz_name, fuzz.key.seed, n, given, fuzz.n_seen);
    }
    for (int i = 0; i < fuzz.n; i++) free(fuzz.seed[i].data);
    dir_remove(folder);
    return code;
}
