/* test_sampler_cuda.c - the sampler on a GPU: the CPU's films, and between the first step of a trajectory
 * and its last the host waits for nothing, however many there are.
 *
 * Films in fp32 are the CPU's within 1e-4 of the grey scale: two steps of a network whose sums are
 * taken in another order. (bf16: test_program.c.)
 */
#include "base/random.h"
#include "hostcuda/hostcuda.h"
#include "sample/sampler.h"
#include <cuda_runtime_api.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { SIDE = 16, PIXELS = SIDE * SIDE, FILMS = 3, BATCH = 2 };

/* ---- the host's waits, counted: the linker puts these before the runtime's ----------------------- */

static int waits;
cudaError_t __real_cudaStreamSynchronize(cudaStream_t s);
cudaError_t __wrap_cudaStreamSynchronize(cudaStream_t s);
cudaError_t __wrap_cudaStreamSynchronize(cudaStream_t s)
{
    waits++;
    return __real_cudaStreamSynchronize(s);
}
cudaError_t __real_cudaEventSynchronize(cudaEvent_t e);
cudaError_t __wrap_cudaEventSynchronize(cudaEvent_t e);
cudaError_t __wrap_cudaEventSynchronize(cudaEvent_t e)
{
    waits++;
    return __real_cudaEventSynchronize(e);
}

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

/* Films of new random weights, of prompts that change from batch to batch. Returns the waits of the
 * last batch. */
static int films(const char *device, const char *precision, SamplerSettings set, int count,
                 float *film)
{
    static const char *const prompt[FILMS] = {"pneumonia", "pneumonia", "chest x-ray"};
    float source[FILMS * PIXELS];
    Device *d;
    Ldm m;
    Sampler *s;
    for (uint32_t i = 0; i < FILMS * PIXELS; i++)
        source[i] = (float)random_uniform((RandomKey){3, STREAM_TEST, 0, 0}, i);
    require(device_open(&d, device, precision, 1, NULL));
    require(ldm_open(&m, d, SOURCE_DIR "/configs/models/tiny",
                     (LdmUse){.random = true, .seed = 3}));
    require(sampler_open(&s, &m, film_square(SIDE), BATCH, set, 5));
    for (int i = 0; i < count; i += BATCH) {
        SampleRequest r[BATCH];
        int n = count - i < BATCH ? count - i : BATCH;
        for (int k = 0; k < n; k++)
            r[k] = (SampleRequest){.id = 7 + (uint64_t)(i + k),
                                   .prompt = prompt[i + k],
                                   .source = source + (i + k) * PIXELS};
        waits = 0;
        require(sampler_run(s, r, n, film + i * PIXELS));
    }
    sampler_close(s);
    ldm_close(&m);
    device_close(d);
    return waits;
}

static void films_are_the_cpus(void **state)
{
    (void)state;
    static const SamplerSettings set = {
        .image_to_image = true, .strength = .5, .guidance = 3, .eta = .5, .steps = 4};
    static float cpu[FILMS * PIXELS], gpu[FILMS * PIXELS];
    double spread = 0;
    films("cpu", "auto", set, FILMS, cpu);
    films("cuda", "fp32", set, FILMS, gpu);
    for (int i = 0; i < FILMS * PIXELS; i++) {
        if (!(fabsf(cpu[i] - gpu[i]) <= 1e-4f))
            fail_msg("pixel %d is %g, on the CPU %g", i, (double)gpu[i], (double)cpu[i]);
        spread += fabs((double)cpu[i] - (double)cpu[i % PIXELS]);
    }
    assert_true(spread > 1e-2 * FILMS * PIXELS); /* films differ by more than that */
}

static void the_host_waits_for_no_step(void **state)
{
    (void)state;
    float film[PIXELS];
    SamplerSettings set = {.guidance = 2, .eta = .5, .steps = 2};
    int few = films("cuda", "bf16", set, 1, film);
    set.steps = 4; /* run, recorded, replayed */
    assert_int_equal(films("cuda", "bf16", set, 1, film), few);
    assert_true(few > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(films_are_the_cpus),
                                       cmocka_unit_test(the_host_waits_for_no_step)};
    hostcuda_set_check(0); /* for time: the tests of ops have it on */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
