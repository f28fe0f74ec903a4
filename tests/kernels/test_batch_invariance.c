/* test_batch_invariance.c - forward results of one image are the same to the bit alone, and as the
 * first, middle or last of 2, 3, 8 and 16: convolution, linear layers, attention. A synthetic image
 * is a function of its seed, not of the batch it was made in; this is where that would break.
 *
 * And so for any number of threads. Fixed shapes: those of the demo's networks, and those of which
 * oneDNN, planning the whole batch, came out differently. Then random ones. */
#include "base/random.h"
#include "kernels.h"
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { LARGEST = 16 };
static const int batches[] = {1, 2, 3, 8, LARGEST};
enum { N_BATCH = sizeof batches / sizeof *batches };

static uint32_t seed;
static uint32_t draws;

static float *normals(size_t n)
{
    float *v = aligned_alloc(64, (n * sizeof *v + 63) / 64 * 64);
    assert_non_null(v);
    RandomKey key = {seed, STREAM_TEST, draws++, 0};
    for (size_t i = 0; i < n; i++)
        v[i] = (float)((double)random_below(key, (uint32_t)i, 1u << 24) / (1 << 23) - 1);
    return v;
}

static int between(int low, int high)
{
    return low + (int)random_below((RandomKey){seed, STREAM_TEST, draws++, 1}, 0,
                                   (uint32_t)(high - low + 1));
}

/* Runs `run` on the last n of LARGEST images for each n: image i must be what it is among all. */
typedef struct Case Case;
struct Case {
    Status (*run)(const Case *c, float *y, size_t first, int n, Stream *s);
    size_t out; /* floats of one image's result */
    const float *in[3];
    ConvShape conv;
    AttentionShape attention;
    int rows; /* of a linear layer, in one image */
};

static void check(const Case *c, const char *what)
{
    Stream *s;
    float *all = normals(c->out * LARGEST), *some = normals(c->out * LARGEST);
    assert_int_equal(cpu_stream_new(&s), OK);
    assert_int_equal(c->run(c, all, 0, LARGEST, s), OK);
    for (int b = 0; b < N_BATCH; b++) {
        omp_set_num_threads(1 + b % 3);
        size_t first = (size_t)(LARGEST - batches[b]);
        assert_int_equal(c->run(c, some, first, batches[b], s), OK);
        if (memcmp(all + first * c->out, some, (size_t)batches[b] * c->out * sizeof *some))
            fail_msg("%s: %d images differ from the same among %d", what, batches[b], LARGEST);
    }
    cpu_stream_free(s);
    free(all);
    free(some);
}

/* ---- convolution ------------------------------------------------------------------------ */

static Status run_conv(const Case *c, float *y, size_t first, int n, Stream *s)
{
    ConvShape a = c->conv;
    a.n = n;
    return cpu_conv2d_fwd(y, c->in[0] + first * (size_t)(a.h * a.w * a.c), c->in[1], c->in[2], &a,
                          s);
}

static void check_conv(ConvShape a)
{
    int p = conv_out(a.h, a.top, a.bottom, a.r, a.stride),
        q = conv_out(a.w, a.left, a.right, a.s, a.stride);
    Case c = {.run = run_conv, .out = (size_t)(p * q * a.k), .conv = a};
    float *x = normals((size_t)(LARGEST * a.h * a.w * a.c)),
          *w = normals((size_t)(a.k * a.r * a.s * a.c));
    float *b = normals((size_t)a.k);
    char what[96];
    snprintf(what, sizeof what, "conv %dx%d %d->%d, filter %dx%d, stride %d", a.h, a.w, a.c, a.k,
             a.r, a.s, a.stride);
    c.in[0] = x;
    c.in[1] = w;
    c.in[2] = b;
    check(&c, what);
    free(x);
    free(w);
    free(b);
}

static void test_conv(void **state)
{
    (void)state;
    /* n h w c k r s stride top left bottom right */
    static const ConvShape fixed[] = {
        {0, 16, 16, 80, 80, 3, 3, 1, 1, 1, 1, 1}, {0, 8, 8, 160, 160, 3, 3, 1, 1, 1, 1, 1},
        {0, 16, 16, 80, 80, 3, 3, 2, 0, 0, 1, 1}, {0, 16, 16, 4, 80, 3, 3, 1, 1, 1, 1, 1},
        {0, 16, 16, 80, 4, 3, 3, 1, 1, 1, 1, 1},  {0, 29, 29, 3, 16, 3, 3, 2, 0, 0, 0, 0},
        {0, 6, 6, 64, 64, 1, 7, 1, 0, 3, 0, 3},   {0, 6, 6, 64, 96, 7, 1, 1, 3, 0, 3, 0},
        {0, 14, 14, 24, 32, 5, 5, 1, 2, 2, 2, 2}, {0, 6, 6, 384, 96, 1, 1, 1, 0, 0, 0, 0},
        {0, 9, 9, 160, 32, 5, 5, 1, 0, 0, 0, 0},  {0, 17, 17, 320, 96, 3, 3, 1, 0, 0, 0, 0},
        {0, 4, 4, 112, 48, 1, 7, 2, 0, 3, 0, 3}};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) check_conv(fixed[i]);
    for (int i = 0; i < 25; i++) {
        static const int filter[][2] = {{3, 3}, {1, 7}, {7, 1}, {5, 5}, {1, 3}, {3, 1}, {1, 1}};
        const int *f = filter[between(0, 6)], pad = between(0, 1);
        check_conv((ConvShape){0, between(7, 18), between(7, 18), between(1, 12) * 8,
                               between(1, 12) * 8, f[0], f[1], between(1, 2), pad * f[0] / 2,
                               pad * f[1] / 2, pad * f[0] / 2, pad * f[1] / 2});
    }
}

/* ---- linear ----------------------------------------------------------------------------- */

static Status run_linear(const Case *c, float *y, size_t first, int n, Stream *s)
{
    int in = c->conv.c, out = c->conv.k;
    return cpu_linear_fwd(y, c->in[0] + first * (size_t)(c->rows * in), c->in[1], c->in[2],
                          (size_t)n * (size_t)c->rows, in, out, s);
}

static Status run_vectors(const Case *c, float *y, size_t first, int n, Stream *s)
{
    int in = c->conv.c, out = c->conv.k;
    return cpu_vector_linear_fwd(y, c->in[0] + first * (size_t)in, c->in[1], c->in[2], (size_t)n,
                                 in, out, s);
}

/* rows 0: one vector an image */
static void check_linear(int rows, int in, int out)
{
    bool vectors = !rows;
    rows += vectors;
    float *x = normals((size_t)(LARGEST * rows * in)), *w = normals((size_t)(in * out)),
          *b = normals((size_t)out);
    Case c = {.run = vectors ? run_vectors : run_linear,
              .out = (size_t)(rows * out),
              .in = {x, w, b},
              .rows = rows};
    char what[96];
    c.conv.c = in;
    c.conv.k = out;
    snprintf(what, sizeof what, "linear %d->%d, %d %s an image", in, out, rows,
             vectors ? "vector" : "rows");
    check(&c, what);
    free(x);
    free(w);
    free(b);
}

static void test_linear(void **state)
{
    (void)state;
    check_linear(256, 80, 640); /* feed-forward of the UNet, its second half, its keys from text */
    check_linear(256, 320, 80);
    check_linear(77, 64, 160);
    check_linear(0, 320, 320); /* time embedding, classifier heads */
    check_linear(0, 1280, 320);
    check_linear(0, 2048, 2);
    for (int i = 0; i < 25; i++) check_linear(between(1, 70), between(1, 1500), between(1, 400));
}

/* ---- attention -------------------------------------------------------------------------- */

static Status run_attention(const Case *c, float *y, size_t first, int n, Stream *s)
{
    AttentionShape a = c->attention;
    size_t d = (size_t)(a.heads * a.dh), q = first * (size_t)a.tq * d, k = first * (size_t)a.tk * d;
    float *lse = normals((size_t)(n * a.heads * a.tq));
    a.n = n;
    Status r = cpu_attention_fwd(y, lse, c->in[0] + q, c->in[1] + k, c->in[2] + k, &a, s);
    free(lse);
    return r;
}

static void check_attention(AttentionShape a)
{
    size_t d = (size_t)(a.heads * a.dh);
    float *q = normals(LARGEST * (size_t)a.tq * d), *k = normals(LARGEST * (size_t)a.tk * d);
    float *v = normals(LARGEST * (size_t)a.tk * d);
    Case c = {.run = run_attention, .out = (size_t)a.tq * d, .in = {q, k, v}, .attention = a};
    char what[96];
    snprintf(what, sizeof what, "attention %d x %d, %d heads of %d", a.tq, a.tk, a.heads, a.dh);
    check(&c, what);
    free(q);
    free(k);
    free(v);
}

static void test_attention(void **state)
{
    (void)state;
    check_attention((AttentionShape){0, 256, 256, 4, 20, 0}); /* n tq tk heads dh causal */
    check_attention((AttentionShape){0, 64, 64, 4, 40, 0});
    check_attention((AttentionShape){0, 256, 77, 4, 20, 0});
    check_attention((AttentionShape){0, 77, 77, 4, 16, 1});
    for (int i = 0; i < 10; i++)
        check_attention((AttentionShape){0, between(1, 200), between(1, 200), between(1, 4),
                                         between(1, 64), i & 1});
}

int main(int argc, char **argv)
{
    seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    printf("seed %u (give it as an argument to repeat)\n", seed);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_conv), cmocka_unit_test(test_linear),
                                       cmocka_unit_test(test_attention)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
