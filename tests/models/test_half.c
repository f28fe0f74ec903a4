/* test_half.c - 16-bit floats: all patterns widened, narrowing against rint() in double. */
#include "base/random.h"
#include "weights/half.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h> /* needs those above */

#include <cmocka.h>

static RandomKey key; /* fresh each run; printed */

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* sign, exponent and mantissa spelled out, for `ebits` exponent and `mbits` mantissa bits */
static uint32_t widened(uint32_t pattern, int ebits, int mbits)
{
    int bias = (1 << (ebits - 1)) - 1, e = (int)(pattern >> mbits) & ((1 << ebits) - 1);
    uint32_t m = pattern & ((1u << mbits) - 1), sign = (pattern >> (ebits + mbits)) << 31;
    if (e == (1 << ebits) - 1)
        return sign | 0x7f800000u | (m ? 0x00400000u | m << (23 - mbits) : 0);
    double v = e ? ldexp(1 + ldexp(m, -mbits), e - bias) : ldexp(m, 1 - bias - mbits);
    return sign | bits_of((float)v);
}

static void all_16_bit_patterns_widen(void **state)
{
    (void)state;
    enum { N = 65536 };
    uint16_t *in = malloc(N * sizeof *in);
    float *half = malloc(N * sizeof *half), *bf16 = malloc(N * sizeof *bf16);
    for (int i = 0; i < N; i++) in[i] = (uint16_t)i;
    half_to_float(half, in, N);
    bf16_to_float(bf16, in, N);
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(bits_of(half[i]), widened(i, 5, 10));
        assert_int_equal(bits_of(bf16[i]), widened(i, 8, 7));
    }
    float_to_half(in, half, N);
    for (uint32_t i = 0; i < N; i++) { /* there and back; signalling NaNs come back quiet */
        bool nan = (i & 0x7fff) > 0x7c00;
        assert_int_equal(in[i], nan ? i | 0x200 : i);
    }
    float_to_bf16(in, bf16, N);
    for (uint32_t i = 0; i < N; i++) {
        bool nan = (i & 0x7fff) > 0x7f80;
        assert_int_equal(in[i], nan ? i | 0x40 : i);
    }
    free(in);
    free(half);
    free(bf16);
}

/* The nearest multiple of the last place at x's magnitude; rint() ties to even. */
static double rounded(double x)
{
    int e;
    frexp(x, &e);
    double place = ldexp(1, (e - 1 < -14 ? -14 : e - 1) - 10), v = rint(x / place) * place;
    return fabs(v) >= 65520 ? copysign(INFINITY, x) : v;
}

static void check_narrow(float x)
{
    uint16_t h;
    float back;
    float_to_half(&h, &x, 1);
    half_to_float(&back, &h, 1);
    if (isnan(x)) {
        assert_true(isnan(back) && (h & 0x200));
        return;
    }
    assert_int_equal(bits_of(back), bits_of((float)rounded(x)));
}

static void floats_narrow_to_the_nearest(void **state)
{
    (void)state;
    for (int i = 0; i < 1000000; i++) check_narrow(float_of(random_bits(key, (uint32_t)i)));
    for (uint32_t h = 0; h < 0x7c00;
         h++) { /* around and at each midpoint: ties, carries, overflow */
        double a = float_of(widened(h, 5, 10)),
               b = h == 0x7bff ? 65536 : float_of(widened(h + 1, 5, 10));
        uint32_t mid = bits_of((float)((a + b) / 2));
        for (uint32_t u = mid - 1; u <= mid + 1; u++) {
            check_narrow(float_of(u));
            check_narrow(-float_of(u));
        }
    }
}

/* The nearer of the two neighbours of x among bfloat16, found in double; the even one on a tie. */
static void check_brain(float x)
{
    uint16_t h;
    float_to_bf16(&h, &x, 1);
    if (isnan(x)) {
        assert_true((h & 0x7fff) > 0x7f80 && (h & 0x40));
        return;
    }
    uint32_t low = bits_of(x) >> 16, high = low + 1;
    double a = float_of(low << 16), b = float_of(high << 16), v = x;
    if ((high & 0x7fff) == 0x7f80) b = copysign(0x1p128, v); /* infinity's place on the scale */
    bool up = fabs(v - a) > fabs(b - v) || (fabs(v - a) == fabs(b - v) && (low & 1));
    assert_int_equal(h, isinf(x) ? low : up ? high : low);
}

static void floats_narrow_to_bfloat16(void **state)
{
    (void)state;
    for (int i = 0; i < 1000000; i++) check_brain(float_of(random_bits(key, (uint32_t)i)));
    for (uint32_t h = 0; h < 0x7f80; h++)
        for (uint32_t u = 0x7fff; u <= 0x8001; u++) {
            check_brain(float_of(h << 16 | u));
            check_brain(-float_of(h << 16 | u));
        }
    check_brain(INFINITY);
    check_brain(-INFINITY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_16_bit_patterns_widen),
        cmocka_unit_test(floats_narrow_to_the_nearest),
        cmocka_unit_test(floats_narrow_to_bfloat16),
    };
    key = (RandomKey){.seed = (uint32_t)time(NULL), .stream = STREAM_TEST};
    printf("seed %u\n", key.seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
