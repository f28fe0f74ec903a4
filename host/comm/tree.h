/* tree.h - in which order the micro-batches of a step are summed: by a binary tree over their global
 * index, the same for any number of ranks, so that the sum is the same to the bit.
 *
 * Node (level, index) sums the micro-batches from index << level on, below (index + 1) << level and
 * below `count`. It is the sum of its two halves; where the second is empty, it is the first. The
 * root is the sum of all. A rank that has the micro-batches first..end-1 can make the nodes that lie
 * within, and the rest of the tree needs only the largest of these: one where ranks have 1, 2, 4, 8
 * ... micro-batches each, a few otherwise.
 *
 * Values are put on a stack in the order of their index. A TreeStack holds the nodes that wait there
 * for their other half, not their values:
 *
 *   for each value: push it; for tree_push() times: add the top to the one below it, and drop it.
 */
#ifndef TREE_H
#define TREE_H
#include <stdbool.h>

typedef struct {
    int level, index;
} TreeNode;

enum { TREE_DEPTH = 32 };
typedef struct {
    int count, n;              /* micro-batches of the step; nodes on the stack */
    TreeNode node[TREE_DEPTH]; /* in the order of their index */
} TreeStack;

void tree_start(TreeStack *t, int count);
/* How often the top is to be added to the one below it, once the value of this node lies on top. */
int tree_push(TreeStack *t, TreeNode node);

/* The nodes that the micro-batches first..first+n-1 of `count` come to, bottom first; and how many
 * values wait on the stack at most while the next one comes (*waiting, may be NULL). */
void tree_range(TreeStack *t, int count, int first, int n, int *waiting);
#endif
