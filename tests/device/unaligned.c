/* unaligned.c - elementwise kernels on inputs that begin between packs of 16 bytes, and casts from
 * a type to itself: the same bits as on aligned ones, which the twins check. No op has such inputs
 * so far; arrays of odd sizes lie behind one another in a block.
 *
 *   test_unaligned [SEED]
 */
#include "arrays.h"
#include "kernels_point.h"
#include "kernels_shape.h"
#include <stdio.h>
#include <time.h>

enum { COUNT = 1023 };
static uint32_t seed;
static int failed, passed;

/* y from inputs x[0 .. 2]; t: scales and shifts */
typedef Status (*Run)(void *y, const void *const *x, const float *t, Dtype type, Stream *s);

static Status fill(void *y, const void *const *x, const float *t, Dtype type, Stream *s)
{
    (void)x, (void)t;
    return cuda_fill(y, 1.5f, COUNT, type, s);
}
static Status add_scaled(void *y, const void *const *x, const float *t, Dtype type, Stream *s)
{
    (void)t;
    return cuda_add_scaled_fwd(y, x[0], .75f, x[1], -2, COUNT, type, s);
}
static Status scale_shift(void *y, const void *const *x, const float *t, Dtype type, Stream *s)
{
    (void)t;
    return cuda_scale_shift_fwd(y, x[0], .75f, -2, COUNT, type, s);
}
static Status affine(void *y, const void *const *x, const float *t, Dtype type, Stream *s, int c)
{
    return cuda_channel_affine_fwd(y, x[0], t, t + 4, COUNT / c, c, type, s);
}
static Status affine1(void *y, const void *const *x, const float *t, Dtype type, Stream *s)
{
    return affine(y, x, t, type, s, 1);
}
static Status affine2(void *y, const void *const *x, const float *t, Dtype type, Stream *s)
{
    return affine(y, x, t, type, s, 2);
}
static Status affine3(void *y, const void *const *x, const float *t, Dtype type, Stream *s)
{
    return affine(y, x, t, type, s, 3);
}
static Status affine4(void *y, const void *const *x, const float *t, Dtype type, Stream *s)
{
    return affine(y, x, t, type, s, 4);
}
static Status clamp(void *y, const void *const *x, const float *t, Dtype type, Stream *s)
{
    (void)t;
    return cuda_clamp_fwd(y, x[0], -.5f, 1, COUNT, type, s);
}
static Status clamp_dx(void *y, const void *const *x, const float *t, Dtype type, Stream *s)
{
    (void)t;
    return cuda_clamp_dx(y, x[0], x[1], -.5f, 1, COUNT, type, s);
}
static Status sample(void *y, const void *const *x, const float *t, Dtype type, Stream *s)
{
    (void)t;
    return cuda_sample_gaussian_fwd(y, x[0], x[1], x[2], COUNT, type, s);
}
static Status dlogvar(void *y, const void *const *x, const float *t, Dtype type, Stream *s)
{
    (void)t;
    return cuda_sample_gaussian_dlogvar(y, x[0], x[1], x[2], COUNT, type, s);
}
static Status ddim(void *y, const void *const *x, const float *t, Dtype type, Stream *s)
{
    return cuda_ddim_step(y, x[0], x[1], NULL, t, COUNT, 0, 0 /* of noise */, 0, type, s);
}
static Status ddim_noisy(void *y, const void *const *x, const float *t, Dtype type, Stream *s)
{
    return cuda_ddim_step(y, x[0], x[1], x[2], t, COUNT, 0, 0 /* of noise */, 0, type, s);
}
static const struct {
    const char *name;
    Run run;
} function[] = {{"fill", fill},
                {"add_scaled", add_scaled},
                {"scale_shift", scale_shift},
                {"affine of 1", affine1},
                {"affine of 2", affine2},
                {"affine of 3", affine3},
                {"affine of 4", affine4},
                {"clamp", clamp},
                {"clamp_dx", clamp_dx},
                {"sample", sample},
                {"dlogvar", dlogvar},
                {"ddim", ddim},
                {"ddim, noise", ddim_noisy}};
enum { FUNCTIONS = sizeof function / sizeof *function };

/* The same numbers, one element further on. */
static Array shifted(const Array *a)
{
    Array b = array_empty(a->count + 1, a->type);
    memcpy(b.value + 1, a->value, a->count * sizeof(float));
    b.value[0] = 0;
    array_store(&b);
    return b;
}

static void *second(const Array *a) { return (char *)a->device + dtype_bytes(a->type); }

/* count elements; got's behind the first `skip` */
static void compare(const char *name, Array *want, Array *got, int skip, size_t count)
{
    array_load(want);
    array_load(got);
    bool same = !memcmp(want->value, got->value + skip, count * sizeof(float));
    if (!same) printf("FAILED %s of %s\n", name, want->type == DTYPE_BF16 ? "bf16" : "fp32");
    if (same) passed++;
    else failed++;
}

/* How many elements a function computes: affine ones whole rows of c. */
static size_t counts(Run run)
{
    return run == affine2 ? COUNT / 2 * 2 : run == affine4 ? COUNT / 4 * 4 : COUNT;
}

static void run(int k, Dtype type, const float *t, Stream *s)
{
    Array x[3], moved[3], want = array_empty(COUNT, type), got = array_empty(COUNT + 1, type);
    for (int i = 0; i < 3; i++) {
        x[i] = array_normal(COUNT, type, seed, (uint64_t)i);
        moved[i] = shifted(&x[i]);
    }
    const void *a[] = {x[0].device, x[1].device, x[2].device};
    const void *b[] = {second(&moved[0]), second(&moved[1]), second(&moved[2])};
    int skip = function[k].run == fill; /* its result is its input */
    if (function[k].run(want.device, a, t, type, s)) abort();
    if (function[k].run(skip ? second(&got) : got.device, b, t, type, s)) abort();
    cudaDeviceSynchronize();
    compare(function[k].name, &want, &got, skip, counts(function[k].run));
    for (int i = 0; i < 3; i++) {
        array_free(&x[i]);
        array_free(&moved[i]);
    }
    array_free(&want);
    array_free(&got);
}

static void cast(Dtype type, Stream *s)
{
    Array x = array_normal(COUNT, type, seed, 0), y = array_empty(COUNT, type);
    if (cuda_cast(y.device, type, x.device, type, COUNT, s)) abort();
    cudaDeviceSynchronize();
    compare("cast", &x, &y, 0, COUNT);
    array_free(&x);
    array_free(&y);
}

int main(int argc, char **argv)
{
    Stream *stream;
    seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    printf("seed %u (give it as an argument to repeat)\n", seed);
    if (cuda_stream_new(&stream)) abort();
    Array t = array_normal(8, DTYPE_F32, seed, 9);
    for (Dtype type = DTYPE_F32; type <= DTYPE_BF16; type++) {
        for (int k = 0; k < FUNCTIONS; k++) run(k, type, t.device, stream);
        cast(type, stream);
    }
    array_free(&t);
    cuda_stream_free(stream);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
