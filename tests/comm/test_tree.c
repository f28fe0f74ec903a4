/* test_tree.c - the tree of sums: the stack's additions are the tree's, written down as a recursion;
 * any division over ranks gives the same; the values that a rank keeps and sends are few. */
#include "base/random.h"
#include "comm/tree.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

enum { MOST = 4096 };
static float item[MOST];

/* The definition. */
static float by_definition(int level, int index, int count)
{
    if (!level) return item[index];
    long second = (2L * index + 1) << (level - 1);
    float sum = by_definition(level - 1, 2 * index, count);
    return second < count ? sum + by_definition(level - 1, 2 * index + 1, count) : sum;
}

static float root(int count)
{
    int level = 0;
    while ((1L << level) < count) level++;
    return by_definition(level, 0, count);
}

typedef struct {
    TreeStack tree;
    float value[TREE_DEPTH];
} Sum;

static void put(Sum *s, TreeNode node, float value)
{
    int n = tree_push(&s->tree, node), top = s->tree.n - 1 + n;
    s->value[top] = value;
    for (; n > 0; n--, top--) s->value[top - 1] += s->value[top];
}

/* Each rank sums its own, all then sum what ranks have come to. */
static float over_ranks(int count, int ranks)
{
    Sum all, own;
    tree_start(&all.tree, count);
    int each = count / ranks;
    for (int r = 0; r < ranks; r++) {
        tree_start(&own.tree, count);
        for (int i = 0; i < each; i++) put(&own, (TreeNode){0, r * each + i}, item[r * each + i]);
        for (int k = 0; k < own.tree.n; k++) put(&all, own.tree.node[k], own.value[k]);
    }
    assert_int_equal(all.tree.n, 1);
    return all.value[0];
}

static void draw(uint32_t seed)
{
    for (uint32_t i = 0; i < MOST; i++) {
        RandomKey size = {seed, STREAM_TEST, 0, 0}, value = {seed, STREAM_TEST, 1, 0};
        item[i] = (float)(exp2(12 * random_uniform(size, i)) * (random_uniform(value, i) - .5));
    }
}

static void any_division_gives_the_tree(void **state)
{
    (void)state;
    uint32_t seed = (uint32_t)time(NULL);
    int differs = 0;
    print_message("seed %u\n", seed);
    draw(seed);
    for (int count = 1; count <= 300; count++) {
        float want = root(count), in_order = 0;
        for (int i = 0; i < count; i++) in_order += item[i];
        differs += want != in_order;
        for (int ranks = 1; ranks <= count; ranks++)
            if (count % ranks == 0) assert_true(over_ranks(count, ranks) == want);
    }
    assert_true(differs > 100); /* the order matters to these numbers */
    for (int ranks = 1; ranks <= MOST; ranks *= 8)
        assert_true(over_ranks(MOST, ranks) == root(MOST));
}

static void few_values_wait_and_travel(void **state)
{
    (void)state;
    for (int count = 1; count <= 512; count++)
        for (int ranks = 1; ranks <= count; ranks++) {
            if (count % ranks) continue;
            int each = count / ranks, covered = 0, waiting;
            for (int r = 0; r < ranks; r++) {
                TreeStack t;
                tree_range(&t, count, r * each, each, &waiting);
                bool power = !(each & (each - 1));
                if (power) assert_int_equal(t.n, 1);
                assert_true(t.n <= 2 * log2(each) + 1 && waiting <= 2 * log2(each) + 1);
                if (power) assert_int_equal(waiting, lround(log2(each)));
                for (int k = 0; k < t.n; k++) { /* they follow each other without a gap */
                    long from = (long)t.node[k].index << t.node[k].level;
                    long end = (t.node[k].index + 1L) << t.node[k].level;
                    assert_int_equal(from, covered);
                    covered = (int)(end < count ? end : count);
                }
                assert_int_equal(covered, (r + 1) * each);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_division_gives_the_tree),
        cmocka_unit_test(few_values_wait_and_travel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
