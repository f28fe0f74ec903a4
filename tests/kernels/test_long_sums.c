/* test_long_sums.c - sums of convolutions and linear layers lose little to rounding: over channels and
 * taps forward, over pixels in the gradients of weights and biases.
 *
 * Each addition to an fp32 number rounds it by at most u = 2^-24 of its size, u / sqrt(3) root mean
 * square. Of n products alike in size and random in sign, added one after the other to one number,
 * the partial sums grow as sqrt(i), and the error relative to the result is u / sqrt(3) *
 * sqrt(n / 2): at n = 20,000 58 u, and as much again in each layer of a deep network. Forward, of
 * LANES partial sums each has n / LANES additions, which are put aside after at most PART; LANES are
 * added up in three steps: u / sqrt(3) * sqrt((p + n / LANES / p) / 2 + 3), p being PART or, of
 * fewer, all. That is allowed here, over all outputs against sums in double: 2.4 u for 216 products
 * (one chain: 6 u), 4.2 u for 20,000. */
#include "../../kernels/cpu/dots.h"
#include "base/random.h"
#include "kernels.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { LANES = 8, PART = 64, PIXELS = 4096 };

typedef enum { LINEAR, CONV, EIGHT = 8, SIXTEEN = 16 } How; /* 8, 16: dots.c with such lanes */

static uint32_t seed, draws;

static float *uniforms(size_t n)
{
    float *v = malloc(n * sizeof *v);
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

/* One output in double; terms: how many products are inside the image. */
static double exact(const ConvShape *a, const float *x, const float *w, int n, int p, int q, int k,
                    int *terms)
{
    double sum = 0;
    for (int r = 0; r < a->r; r++)
        for (int s = 0; s < a->s; s++) {
            int i = p * a->stride + r - a->top, j = q * a->stride + s - a->left;
            if (i < 0 || i >= a->h || j < 0 || j >= a->w) continue;
            const float *pixel = x + (size_t)((n * a->h + i) * a->w + j) * (size_t)a->c;
            const float *filter = w + (size_t)((k * a->r + r) * a->s + s) * (size_t)a->c;
            for (int c = 0; c < a->c; c++) sum += (double)pixel[c] * filter[c];
            *terms += a->c;
        }
    return sum;
}

/* Root mean square error relative to the outputs', as a share of what is allowed. */
static void check(ConvShape a, How how)
{
    int rows = conv_out(a.h, a.top, a.bottom, a.r, a.stride),
        cols = conv_out(a.w, a.left, a.right, a.s, a.stride);
    size_t in = (size_t)(a.n * a.h * a.w) * (size_t)a.c, out = (size_t)(a.n * rows * cols * a.k);
    float *x = uniforms(in), *w = uniforms((size_t)(a.k * a.r * a.s) * (size_t)a.c);
    float *b = uniforms((size_t)a.k), *y = uniforms(out), *at = y;
    Stream *stream;
    assert_int_equal(cpu_stream_new(&stream), OK);
    memset(y, 0xff, out * sizeof *y); /* NaN */
    Status s = how == LINEAR ? cpu_linear_fwd(y, x, w, b, (size_t)a.w, a.c, a.k, stream)
               : how == CONV ? cpu_conv2d_fwd(y, x, w, b, &a, stream)
                             : dots_conv(y, x, w, b, &a, (int)how, stream);
    assert_int_equal(s, OK);
    int line = a.c % LANES ? a.r * a.s * a.c + LANES - 1 : a.s * a.c; /* as dots.c has it */
    int lanes = how == SIXTEEN && line / LANES % 2 == 0 ? SIXTEEN : LANES;
    double error = 0, size = 0, allowed = 0;
    for (int n = 0; n < a.n; n++)
        for (int p = 0; p < rows; p++)
            for (int q = 0; q < cols; q++)
                for (int k = 0; k < a.k; k++, at++) {
                    int terms = 1;
                    double want = b[k] + exact(&a, x, w, n, p, q, k, &terms);
                    double steps = (terms + lanes - 1) / lanes; /* whole ones */
                    double part = steps < PART ? steps : PART;
                    error += (*at - want) * (*at - want);
                    size += want * want;
                    allowed += want * want * ((part + steps / part) / 2 + 3);
                }
    double relative = sqrt(error / size), limit = 0x1p-24 / sqrt(3) * sqrt(allowed / size);
    static const char *const name[] = {"linear", "conv", [EIGHT] = "dots", [SIXTEEN] = "dots 16"};
    printf("%-10s of %5d products: error %.1f u, %.1f u allowed\n", name[how],
           a.r * a.s * a.c, relative * 0x1p24, limit * 0x1p24);
    if (!(relative <= limit))
        fail_msg("seed %u: %dx%d filter over %d channels to %d, %d x %d pixels: error %.1f u, "
                 "at most %.1f u",
                 seed, a.r, a.s, a.c, a.k, a.h, a.w, relative * 0x1p24, limit * 0x1p24);
    cpu_stream_free(stream);
    free(x);
    free(w);
    free(b);
    free(y);
}

/* Channels alone, whole vectors of 8 and of 16; short sums and long ones. */
static void test_conv(void **state)
{
    (void)state;
    static const int filter[][2] = {{3, 3}, {3, 3}, {1, 7}, {7, 1}, {5, 5}, {1, 1}};
    static const int unit[] = {1, 8, 16};
    static const How how[] = {CONV, EIGHT, SIXTEEN};
    for (int i = 0; i < 36; i++) {
        const int *f = filter[i % 6], taps = f[0] * f[1], stride = between(1, 2);
        int most = i < 6 ? 20000 : 2400, fill = unit[i / 6 % 3], pad = between(0, 1);
        int c = between(most / 8, most) / taps / fill * fill + fill, n = i < 6 ? 2 : between(1, 3);
        int up = pad * (f[0] / 2), left = pad * (f[1] / 2);
        check((ConvShape){n, between(7, 19), between(7, 40), c, between(9, 20), f[0], f[1], stride,
                          up, left, up, left},
              how[(i + i / 6) % 3]);
    }
    /* a line is more than a job; results without x; one pixel, one filter */
    check((ConvShape){2, 3, 200, 4, 5, 3, 3, 1, 1, 1, 1, 1}, CONV);
    check((ConvShape){1, 4, 5, 8, 3, 3, 3, 1, 4, 3, 4, 5}, CONV);
    check((ConvShape){90, 1, 1, 16, 1, 3, 3, 2, 1, 1, 1, 1}, SIXTEEN);
}

static void test_linear(void **state)
{
    (void)state;
    for (int i = 0; i < 12; i++) {
        int c = i < 4 ? between(2400, 20000) : between(1, 400);
        check((ConvShape){1, 1, between(20, 70), c, between(10, 40), 1, 1, 1, 0, 0, 0, 0}, LINEAR);
    }
}

/* One vector for each image is summed in double: one rounding, which is u of the result at most. */
static void test_vectors(void **state)
{
    (void)state;
    Stream *stream;
    assert_int_equal(cpu_stream_new(&stream), OK);
    for (int i = 0; i < 12; i++) {
        int n = between(1, 5), c = i < 6 ? between(1, 100) : between(100, 20000),
            k = between(1, 40);
        size_t in = (size_t)c, out = (size_t)k;
        float *x = uniforms((size_t)n * in), *w = uniforms(in * out),
              *b = i % 2 ? uniforms(out) : NULL;
        float *y = malloc((size_t)n * out * sizeof *y), *at = y;
        assert_non_null(y);
        memset(y, 0xff, (size_t)n * out * sizeof *y); /* NaN */
        assert_int_equal(cpu_vector_linear_fwd(y, x, w, b, (size_t)n, c, k, stream), OK);
        for (int r = 0; r < n; r++)
            for (size_t o = 0; o < out; o++, at++) {
                double want = b ? b[o] : 0;
                for (size_t j = 0; j < in; j++)
                    want += (double)x[(size_t)r * in + j] * w[o * in + j];
                if (!(fabs(*at - want) <= 0x1.0001p-24 * fabs(want) + 1e-12))
                    fail_msg("seed %u: vector %d of %d, %d to %d: result %zu is %.9g, not %.9g",
                             seed, r, n, c, k, o, (double)*at, want);
            }
        free(x);
        free(w);
        free(b);
        free(y);
    }
    cpu_stream_free(stream);
}

/* The gradient of one weight in double; size: the sum of the squares of its products. */
static double exact_dw(const ConvShape *a, const float *x, const float *dy, int k, int r, int s,
                       int c, double *size)
{
    int rows = conv_out(a->h, a->top, a->bottom, a->r, a->stride),
        cols = conv_out(a->w, a->left, a->right, a->s, a->stride);
    double sum = 0;
    for (int n = 0; n < a->n; n++)
        for (int p = 0; p < rows; p++)
            for (int q = 0; q < cols; q++) {
                int i = p * a->stride + r - a->top, j = q * a->stride + s - a->left;
                if (i < 0 || i >= a->h || j < 0 || j >= a->w) continue;
                double product =
                    (double)x[((size_t)(n * a->h + i) * (size_t)a->w + (size_t)j) * (size_t)a->c +
                              (size_t)c] *
                    dy[((size_t)(n * rows + p) * (size_t)cols + (size_t)q) * (size_t)a->k +
                       (size_t)k];
                sum += product;
                *size += product * product;
            }
    return sum;
}

/* Products of x with mean and dy without, as after a ReLU and before a batch norm. The partial sums
 * of n of them grow as sqrt(i) times a product; what is allowed are parts of PIXELS. */
static void check_dw(ConvShape a, bool linear)
{
    int rows = conv_out(a.h, a.top, a.bottom, a.r, a.stride),
        cols = conv_out(a.w, a.left, a.right, a.s, a.stride);
    size_t pixels = (size_t)(a.n * rows * cols), taps = (size_t)(a.k * a.r * a.s);
    size_t in = (size_t)(a.n * a.h * a.w) * (size_t)a.c;
    float *x = uniforms(in), *dy = uniforms(pixels * (size_t)a.k);
    float *dw = uniforms(taps * (size_t)a.c), *db = uniforms((size_t)a.k), *at = dw;
    for (size_t i = 0; i < in; i++) x[i] += 1;
    Stream *stream;
    assert_int_equal(cpu_stream_new(&stream), OK);
    assert_int_equal(linear ? cpu_linear_dw(dw, db, dy, x, pixels, a.c, a.k, stream)
                            : cpu_conv2d_dw(dw, db, dy, x, &a, stream),
                     OK);
    double error = 0, size = 0, error_bias = 0, size_bias = 0;
    for (int k = 0; k < a.k; k++) {
        for (int r = 0; r < a.r; r++)
            for (int s = 0; s < a.s; s++)
                for (int c = 0; c < a.c; c++, at++) {
                    double e = *at - exact_dw(&a, x, dy, k, r, s, c, &size);
                    error += e * e;
                }
        double sum = 0;
        for (size_t i = 0; i < pixels; i++) {
            double v = dy[i * (size_t)a.k + (size_t)k];
            sum += v;
            size_bias += v * v;
        }
        error_bias += (db[k] - sum) * (db[k] - sum);
    }
    double allowed = sqrt((PIXELS + (double)pixels / PIXELS) / 2 / 3);
    double u = sqrt(error / size) * 0x1p24, u_bias = sqrt(error_bias / size_bias) * 0x1p24;
    printf("%s over %6zu pixels: error of dw %.1f u, of db %.1f u, %.1f u allowed\n",
           linear ? "linear" : "conv  ", pixels, u, u_bias, allowed);
    if (!(u <= allowed && u_bias <= allowed))
        fail_msg("seed %u: %dx%d filter, stride %d, over %d images of %d x %d, %d to %d channels: "
                 "error of dw %.1f u, of db %.1f u, at most %.1f u",
                 seed, a.r, a.s, a.stride, a.n, a.h, a.w, a.c, a.k, u, u_bias, allowed);
    cpu_stream_free(stream);
    free(x);
    free(dy);
    free(dw);
    free(db);
}

static void test_gradients(void **state)
{
    (void)state;
    static const int filter[][2] = {{3, 3}, {3, 3}, {3, 3}, {1, 7}, {7, 1}, {5, 5}};
    for (int i = 0; i < 6; i++) {
        const int *f = filter[i], stride = between(1, 2), up = f[0] / 2 * between(0, 1);
        int n = i == 1 ? between(80, 100) : between(1, 3), left = f[1] / 2;
        int side = i == 1 ? 21 * stride : between(150, 170) * stride;
        check_dw((ConvShape){n, side + between(0, 3), side + between(0, 3), between(3, 17),
                             between(3, 17), f[0], f[1], stride, up, left, up, left},
                 false);
    }
    check_dw((ConvShape){2, 130, 131, 5, 7, 3, 3, 2, 0, 1, 1, 0}, false); /* as in autoencoders */
    check_dw((ConvShape){3, 5, 2100, 4, 3, 3, 3, 1, 1, 1, 1, 1}, false);  /* parts of one row */
    check_dw((ConvShape){1, 4, 2100, 3, 5, 3, 3, 1, 4, 1, 4, 1}, false); /* rows of padding alone */
    check_dw((ConvShape){1, 63, 64, 3, 40, 3, 3, 1, 1, 1, 1, 1}, false); /* one part */
    for (int i = 0; i < 2; i++)
        check_dw((ConvShape){1, 1, between(30000, 60000), between(8, 33), between(8, 33), 1, 1, 1,
                             0, 0, 0, 0},
                 true);
}

int main(int argc, char **argv)
{
    seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_conv), cmocka_unit_test(test_linear),
                                       cmocka_unit_test(test_vectors),
                                       cmocka_unit_test(test_gradients)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
