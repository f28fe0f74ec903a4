/* test_memory_cuda.c - a GPU with too little memory: the autoencoder takes fewer films at once, down
 * to one, with the same results; without room for one it says so and keeps nothing.
 *
 * Films at once tell in the order of a convolution's sums: results within 1e-4.
 */
#include "base/random.h"
#include "hostcuda/hostcuda_runtime.h"
#include "models/ldm.h"
#include <cuda_runtime_api.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SIDE = 8, PIXELS = SIDE * SIDE, FILMS = 4, MOST = FILMS * PIXELS, SLACK = 2048 };

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

typedef Status (*Coding)(Ldm *m, const float *in, int n, FilmShape shape, float *out);

/* Bytes of the GPU that are taken. */
static size_t taken(void)
{
    size_t left, total;
    assert_int_equal(cudaMemGetInfo(&left, &total), cudaSuccess);
    return total - left;
}

/* How many bytes `code` takes beyond what there is. */
static size_t measure(Ldm *m, Coding code, const float *in, int n, float *out)
{
    device_peak_restart(m->device);
    size_t before = device_peak(m->device);
    require(code(m, in, n, film_square(SIDE), out));
    return device_peak(m->device) - before;
}

static void one_way(Ldm *m, Coding code, const float *in, size_t count)
{
    static float want[MOST], got[MOST];
    size_t need[FILMS + 1]; /* of so many films at once */
    for (int n = 1; n <= FILMS; n *= 2) need[n] = measure(m, code, in, n, want);
    size_t had = taken();
    for (int n = 1; n < FILMS; n *= 2) {
        hostcuda_set_memory(had + need[n] + SLACK);
        memset(got, 0xff, sizeof got);
        assert_int_equal(measure(m, code, in, FILMS, got), need[n]);
        for (size_t i = 0; i < count; i++) assert_true(fabsf(got[i] - want[i]) <= 1e-4f);
    }
    hostcuda_set_memory(had + need[1] / 2);
    assert_int_equal(code(m, in, FILMS, film_square(SIDE), got), ERR_SPACE);
    assert_non_null(strstr(status_message(), "films at once = 1 is too much"));
    assert_int_equal(taken(), had);
    hostcuda_set_memory((size_t)1 << 30);
}

static void fewer_films_at_once(void **state)
{
    (void)state;
    static float films[MOST], latents[MOST];
    Device *d;
    Ldm m;
    for (uint32_t i = 0; i < MOST; i++)
        films[i] = (float)random_uniform((RandomKey){3, STREAM_TEST, 0, 0}, i);
    require(device_open(&d, "cuda", "fp32", 1, NULL));
    require(ldm_open(&m, d, SOURCE_DIR "/configs/models/tiny",
                     (LdmUse){.random = true, .seed = 3}));
    size_t count = FILMS * ldm_latent_count(&m, film_square(SIDE));
    one_way(&m, ldm_encode, films, count);
    require(ldm_encode(&m, films, FILMS, film_square(SIDE), latents));
    one_way(&m, ldm_decode, latents, MOST);
    ldm_close(&m);
    device_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(fewer_films_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
