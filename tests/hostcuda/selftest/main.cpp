/* main.cpp - runs the cases of the machine's own test under every schedule and async timing.
 *
 *   test_hostcuda_machine [name]
 */
#include "selftest.h"

#include <string>

namespace selftest
{

float *data, *input;
Kernel kernel;
static void (*body)();

static bool fail(const Case &c, int schedule, int async, const char *what, const char *text)
{
    printf("FAILED %s (schedule %d, async %d): %s%s\n", c.name, schedule, async, what, text);
    return false;
}

bool run(const Case &c, int schedule, int async, uint64_t seed)
{
    hostcuda_set_schedule(schedule);
    hostcuda_set_async(async);
    hostcuda_set_seed(seed);
    hostcuda_clear();
    hostcuda_set_stats(strcmp(c.name, "statistics") == 0);
    memset(data, 0, DATA_WORDS * 4);
    host_wrote(data, DATA_WORDS * 4);
    body = c.body;
    kernel = Kernel();
    kernel.name = c.name;
    kernel.body = [](void *) { body(); };
    kernel.context = nullptr;
    kernel.max_dynamic_shared = 227 * 1024;
    kernel.dynamic_align = 1024;
    kernel.shared.push_back({c.static_bytes, 16, 0});
    LaunchConfig config;
    config.grid = dim3(c.grid);
    config.block = dim3(c.block);
    config.cluster = dim3(c.cluster);
    config.dynamic_shared = c.dynamic_bytes;
    const bool ok = launch(kernel, config) == cudaSuccess;
    if (c.finding && ok) return fail(c, schedule, async, "nothing found, expected: ", c.finding);
    if (c.finding && !strstr(error_text(), c.finding))
        return fail(c, schedule, async, "found something else: ", error_text());
    if (!c.finding && !ok) return fail(c, schedule, async, "", error_text());
    if (!c.finding && c.verify && !c.verify()) return fail(c, schedule, async, "wrong result", "");
    return true;
}

} // namespace selftest

int main(int argc, char **argv)
{
    using namespace selftest;
    data = static_cast<float *>(device_alloc(DATA_WORDS * 4));
    input = static_cast<float *>(device_alloc(DATA_WORDS * 4));
    for (int i = 0; i < DATA_WORDS; i++) input[i] = (float)i;
    host_wrote(input, DATA_WORDS * 4);
    int n_failed = 0, n_cases = 0;
    for (const Table &table : {thread_cases(), tensor_cases(), hopper_cases(), cluster_cases()}) {
        for (int i = 0; i < table.n; i++) {
            const Case &c = table.cases[i];
            if (argc > 1 && strcmp(argv[1], c.name) != 0) continue;
            n_cases++;
            bool good = true;
            for (int schedule = 0; schedule < 4; schedule++)
                for (int async = 0; async < 3; async++)
                    good = good && run(c, schedule, async, 1 + (uint64_t)schedule);
            if (argc > 1) printf("%s\n", error_text());
            n_failed += !good;
        }
    }
    if (argc == 1) {
        n_cases++;
        n_failed += !run_early_exit();
    }
    device_free(data);
    device_free(input);
    printf("%d of %d cases failed\n", n_failed, n_cases);
    return n_failed > 0 || n_cases == 0;
}
