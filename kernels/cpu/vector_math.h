/* vector_math.h - exp, tanh, logistic and normal distribution as branch-free polynomials; sums
 * along an array.
 *
 * They are inlined into loops that the compiler vectorises (libm's functions are not), and do
 * the same arithmetic in the body and in the remainder of a loop: an element's value does not
 * depend on its position. NaN in, NaN out. Coefficients: own minimax fits, rounded to float.
 */
#ifndef VECTOR_MATH_H
#define VECTOR_MATH_H
#include <stdint.h>
#include <string.h>

/* e^x, relative error below 2 ulp for x in [-87, 88]; x is clamped to that range, so that the
 * result is neither 0 nor infinite. e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2. */
static inline float vm_exp(float x)
{
    x = x < -87.f ? -87.f : x;
    x = x > 88.f ? 88.f : x;
    float shifted = x * 1.44269504f + 12582912.f; /* 1.5 * 2^23: the low bits now hold n */
    float n = shifted - 12582912.f;
    float r = (x - n * 0.693359375f) +
              n * 2.12194440e-4f; /* ln 2 in two parts, n times the first is exact */
    float p = 1.38145580e-3f;
    p = p * r + 8.36873613e-3f;
    p = p * r + 4.16683890e-2f;
    p = p * r + 1.66665211e-1f;
    p = p * r + 4.99999940e-1f;
    p = (p * r) * r + r + 1;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits + 127) << 23; /* the bits above n's leave by the shift: 2^n */
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

/* 1 / (1 + e^-x) */
static inline float vm_logistic(float x) { return 1 / (1 + vm_exp(-x)); }

/* Relative error below 1e-6 everywhere. */
static inline float vm_tanh(float x)
{
    float z = x * x, a = x < 0 ? -x : x;
    float p = -6.27424335e-3f;
    p = p * z + 2.10716818e-2f;
    p = p * z - 5.38523123e-2f;
    p = p * z + 1.33325860e-1f;
    p = p * z - 3.33333164e-1f;
    p = (p * z) * x + x;                   /* |x| < 0.55: odd polynomial */
    float q = 1 - 2 / (vm_exp(2 * a) + 1); /* beyond: no cancellation    */
    q = x < 0 ? -q : q;
    return a < 0.55f ? p : q;
}

/* Probability of a standard normal below x and, in *density, its density at x. For t = |x| < 1.25 an
 * odd polynomial above 1/2; beyond, the probability of the tail is e^(-t^2/2) times a polynomial in
 * 1 / (1 + 0.375 t), whose rounding would be too much of the whole below. Absolute error below 1e-7. */
static inline float vm_normal(float x, float *density)
{
    float t = x < 0 ? -x : x, u = 1 / (1 + 0.375f * t);
    float e = vm_exp(-0.5f * (x * x));
    float p = -2.98278201e-2f;
    p = p * u + 1.75045505e-1f;
    p = p * u - 3.87526184e-1f;
    p = p * u + 3.39895904e-1f;
    p = p * u - 6.13754727e-2f;
    p = p * u + 1.70807168e-1f;
    p = p * u + 1.42927647e-1f;
    p = p * u + 1.50053233e-1f;
    float tail = (p * u) * e, z = x * x;
    float odd = 4.77173501e-7f;
    odd = odd * z - 9.06362493e-6f;
    odd = odd * z + 1.15041345e-4f;
    odd = odd * z - 1.18711707e-3f;
    odd = odd * z + 9.97350272e-3f;
    odd = odd * z - 6.64903745e-2f;
    odd = odd * z + 3.98942292e-1f;
    *density = 0.398942280f * e;
    return t < 1.25f ? odd * x + 0.5f : x < 0 ? tail : 1 - tail;
}

/* Sixteen numbers side by side, on any instruction set: element i of an array is added to lane
 * i % 16, and the lanes in a tree. (The compiler's own reductions add the lanes one by one, and
 * as many as the instruction set has.) */
enum { LANES = 16 };
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float Lanes8 __attribute__((vector_size(32)));
typedef float Lanes4 __attribute__((vector_size(16)));

static inline __attribute__((always_inline)) float lanes_sum(const Lanes *lanes)
{
    Lanes8 eight[2];
    memcpy(eight, lanes, sizeof eight);
    eight[0] += eight[1];
    Lanes4 four[2];
    memcpy(four, eight, sizeof four);
    four[0] += four[1];
    return (four[0][0] + four[0][2]) + (four[0][1] + four[0][3]);
}
#endif
