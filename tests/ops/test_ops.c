/* test_ops.c - every op's kernels on a device against its twin in double, every twin's gradient
 * against differences, on fresh random inputs; and no op without a case.
 *
 *   test_ops [SEED [PREFIX [f32|bf16]]]   PREFIX: only cases whose name begins so
 *
 * Compiled once for each device: DEVICE is "cpu" unless the build says "cuda".
 */
#include "ref/ref.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef DEVICE
#define DEVICE "cpu"
#endif

int main(int argc, char **argv)
{
    uint32_t seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    const char *prefix = argc > 2 ? argv[2] : "";
    bool gpu = strcmp(DEVICE, "cpu") != 0, *seen = calloc((size_t)op_table_count, sizeof *seen);
    int failed = 0, passed = 0;
    printf("%s, seed %u (give it as an argument to repeat)\n", DEVICE, seed);
    for (int f = 0; f < ref_family_count; f++)
        for (int i = 0; i < ref_family[f]->n_case; i++) {
            const OpCase *c = &ref_family[f]->cases[i];
            if (strncmp(c->name, prefix, strlen(prefix))) continue;
            for (Dtype act = DTYPE_F32; act <= (gpu ? DTYPE_BF16 : DTYPE_F32); act++) {
                if (argc > 3 && (act == DTYPE_BF16) != !strcmp(argv[3], "bf16")) continue;
                int bad = ref_check(c, DEVICE, act, seed, seen);
                failed += bad > 0;
                passed += !bad;
            }
        }
    for (int i = 0; i < op_table_count && !*prefix; i++)
        if (!seen[i] && op_table[i]->cpu) {
            printf("FAILED: op %s is in the table, but no case runs it\n", op_table[i]->name);
            failed++;
        }
    if (!passed && !failed) {
        printf("FAILED: no case begins with \"%s\"\n", prefix);
        failed++;
    }
    printf("%d passed, %d failed\n", passed, failed);
    free(seen);
    return failed != 0;
}
