/* tree.c - which nodes of the tree of sums meet; see tree.h. */
#include "comm/tree.h"
#include "base/status.h"

void tree_start(TreeStack *t, int count) { *t = (TreeStack){.count = count}; }

/* Where its second half is empty, a node's value is its parent's. */
static TreeNode rise(TreeNode node, int count)
{
    while (!(node.index & 1) && (1LL << node.level) < count &&
           (node.index + 1LL) << node.level >= count)
        node = (TreeNode){node.level + 1, node.index / 2};
    return node;
}

int tree_push(TreeStack *t, TreeNode node)
{
    int n = 0;
    node = rise(node, t->count);
    for (; t->n && (node.index & 1); n++) {
        TreeNode below = t->node[t->n - 1];
        if (below.level != node.level || below.index != node.index - 1) break;
        node = rise((TreeNode){node.level + 1, node.index / 2}, t->count);
        t->n--;
    }
    CHECK(t->n < TREE_DEPTH);
    t->node[t->n++] = node;
    return n;
}

void tree_range(TreeStack *t, int count, int first, int n, int *waiting)
{
    int most = 0;
    tree_start(t, count);
    for (int i = 0; i < n; i++) {
        if (t->n > most) most = t->n;
        tree_push(t, (TreeNode){0, first + i});
    }
    if (waiting) *waiting = most;
}
