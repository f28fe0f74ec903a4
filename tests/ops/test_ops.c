/* test_ops.c - every op's CPU kernel against its twin in double, every twin's gradient against
 * differences, on fresh random inputs; and no op without a case. */
#include "ref/ref.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
    uint32_t seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    bool *seen = calloc((size_t)op_table_count, sizeof *seen);
    int failed = 0, passed = 0;
    printf("seed %u (give it as an argument to repeat)\n", seed);
    for (int f = 0; f < ref_family_count; f++)
        for (int i = 0; i < ref_family[f]->n_case; i++) {
            int bad = ref_check(&ref_family[f]->cases[i], seed, seen);
            failed += bad > 0;
            passed += !bad;
        }
    for (int i = 0; i < op_table_count; i++)
        if (!seen[i] && op_table[i]->cpu) {
            printf("FAILED: op %s is in the table, but no case runs it\n", op_table[i]->name);
            failed++;
        }
    printf("%d passed, %d failed\n", passed, failed);
    free(seen);
    return failed != 0;
}
