/* reduce.c - sums over micro-batches and ranks; see reduce.h. */
#include "comm/reduce.h"
#include "exec/sweep.h"
#include <stdlib.h>
#include <string.h>

/* ---- buckets -------------------------------------------------------------------------------- */

static size_t parts_of(size_t floats) { return (floats + SQUARES - 1) / SQUARES; }

/* Whole parts of SQUARES floats for every rank, so that only a span's end is ragged. */
static void cut(Reduction *r)
{
    size_t ranks = (size_t)r->ranks, most = parts_of(r->set.bucket_bytes / sizeof(float));
    most = (most + ranks - (most > 0)) / ranks * ranks * SQUARES; /* one each at least */
    for (int s = 0; s < r->n_span; s++) {
        size_t end = r->span[s].count, step = r->set.bucket_bytes ? most : end;
        for (size_t at = 0; at < end; at += step) {
            size_t count = end - at < step ? end - at : step;
            r->bucket = realloc(r->bucket, (size_t)(r->n_bucket + 1) * sizeof *r->bucket);
            CHECK(r->bucket);
            r->bucket[r->n_bucket++] =
                (Bucket){.span = s,
                         .first = at,
                         .count = count,
                         .shard = (parts_of(count) + ranks - 1) / ranks * SQUARES};
        }
    }
}

static bool ragged(const Reduction *r, const Bucket *b)
{
    return b->shard * (size_t)r->ranks != b->count;
}

size_t reduction_own(const Reduction *r, const Bucket *b)
{
    size_t before = b->shard * (size_t)r->rank;
    if (before >= b->count) return 0;
    return b->count - before < b->shard ? b->count - before : b->shard;
}

/* Where span s begins in a kept block; of n_span: the block's size. Sweeps go by 16 bytes. */
static size_t span_at(const Reduction *r, int s)
{
    const size_t whole = 16 / sizeof(float);
    size_t at = 0;
    for (int i = 0; i < s; i++) at += (r->span[i].count + whole - 1) / whole * whole;
    return at;
}

static Status alloc_blocks(Reduction *r)
{
    size_t all = span_at(r, r->n_span), largest = 0;
    bool any_ragged = false;
    for (int b = 0; b < r->n_bucket; b++) {
        if (r->bucket[b].shard > largest) largest = r->bucket[b].shard;
        any_ragged |= ragged(r, &r->bucket[b]);
    }
    r->kept = calloc((size_t)r->n_kept + 1, sizeof *r->kept);
    CHECK(r->kept);
    for (int k = 0; k < r->n_kept; k++)
        TRY(device_alloc(r->device, (void **)&r->kept[k], all * sizeof(float), r->what));
    if (r->ranks == 1) return OK;
    size_t bytes = largest * (size_t)(r->ranks * r->n_part) * sizeof(float);
    TRY(device_alloc(r->device, (void **)&r->in, bytes, r->what));
    if (!any_ragged && r->n_part == 1) return OK;
    return device_alloc(r->device, (void **)&r->out, bytes, r->what);
}

Status reduction_check(int n_micro, int ranks, const char *section)
{
    int below = n_micro / ranks * ranks;
    if (below == n_micro) return OK;
    if (!below)
        return FAIL(ERR_USAGE,
                    "%s.accumulate = %d micro-batches a step over %d ranks, expected %d or a "
                    "multiple of it",
                    section, n_micro, ranks, ranks);
    return FAIL(ERR_USAGE,
                "%s.accumulate = %d micro-batches a step over %d ranks, expected a multiple of "
                "their number: the nearest are %d and %d",
                section, n_micro, ranks, below, below + ranks);
}

Status reduction_new(Reduction *r, Device *d, const ReduceSettings *set, const char *what,
                     const Span *span, int n_span)
{
    int ranks = comm_size(set->comm), rank = comm_rank(set->comm);
    CHECK(set->n_micro % ranks == 0);
    *r = (Reduction){.what = what,
                     .set = *set,
                     .device = d,
                     .ranks = ranks,
                     .rank = rank,
                     .n_local = set->n_micro / ranks,
                     .n_span = n_span,
                     .span = calloc((size_t)n_span + 1, sizeof *span)};
    CHECK(r->span);
    r->set.sharded &= ranks > 1;
    r->first = rank * r->n_local;
    if (n_span) memcpy(r->span, span, (size_t)n_span * sizeof *span);
    for (int k = 0; k < ranks; k++) {
        TreeStack t;
        int waiting;
        tree_range(&t, set->n_micro, k * r->n_local, r->n_local, &waiting);
        if (t.n > r->n_part) r->n_part = t.n;
        if (k == rank) r->n_kept = waiting;
    }
    cut(r);
    tree_start(&r->stack, set->n_micro);
    Status s = alloc_blocks(r);
    if (s) reduction_free(r);
    return s;
}

void reduction_free(Reduction *r)
{
    for (int k = 0; k < r->n_kept && r->kept; k++) device_release(r->device, r->kept[k]);
    if (r->device) device_release(r->device, r->in);
    if (r->device) device_release(r->device, r->out);
    free(r->kept);
    free(r->span);
    free(r->bucket);
    *r = (Reduction){0};
}

/* ---- this rank's micro-batches ------------------------------------------------------------------ */

/* Of kept block k, where the floats of a bucket lie. */
static float *kept_at(const Reduction *r, int k, const Bucket *b)
{
    return r->kept[k] + span_at(r, b->span) + b->first;
}

static float *values_of(const Reduction *r, const Bucket *b)
{
    return r->span[b->span].data + b->first;
}

void reduction_more(Reduction *r) { r->last = false; }
void reduction_last(Reduction *r) { r->last = true; }
void reduction_start(Reduction *r) { tree_start(&r->stack, r->set.n_micro); }

/* The index of the micro-batch whose pass has run, or runs, last. */
static TreeNode newest(const Reduction *r)
{
    const TreeStack *t = &r->stack;
    if (!t->n) return (TreeNode){0, r->first};
    TreeNode top = t->node[t->n - 1];
    return (TreeNode){0, (top.index + 1) << top.level};
}

/* The value, which lies on top of the stack, goes down; the sum lies in the lowest block that it has
 * come to. */
Status reduction_hold(Reduction *r)
{
    int top = r->stack.n, n = tree_push(&r->stack, newest(r));
    CHECK(!r->last && r->stack.n <= r->n_kept);
    for (int i = 0; i < r->n_bucket; i++) {
        const Bucket *b = &r->bucket[i];
        const float *x = values_of(r, b);
        if (!n) TRY(device_copy(r->device, kept_at(r, top, b), x, b->count * sizeof *x));
        for (int k = top - 1; k >= top - n; k--) {
            TRY(sweep_add(r->device, kept_at(r, k, b), x, b->count));
            x = kept_at(r, k, b);
        }
    }
    return OK;
}

/* The same for the last micro-batch, whose sum stays where its value is. *under: how many blocks are
 * left below it. */
static Status join_own(const Reduction *r, const Bucket *b, int *under, TreeStack *stack)
{
    *stack = r->stack;
    int top = stack->n, n = tree_push(stack, newest(r));
    *under = top - n;
    for (int k = top - 1; k >= *under; k--)
        TRY(sweep_add(r->device, values_of(r, b), kept_at(r, k, b), b->count));
    return OK;
}

/* ---- over ranks ------------------------------------------------------------------------------- */

/* out[rank][part][shard]: what each rank is to get of this rank's partial sums. */
static Status pack(const Reduction *r, const Bucket *b, int under)
{
    for (int to = 0; to < r->ranks; to++) {
        size_t from = b->shard * (size_t)to;
        if (from >= b->count) break;
        size_t n = b->count - from < b->shard ? b->count - from : b->shard;
        for (int p = 0; p <= under; p++) {
            const float *x = p < under ? kept_at(r, p, b) : values_of(r, b);
            TRY(device_copy(r->device, r->out + ((size_t)(to * r->n_part + p)) * b->shard, x + from,
                            n * sizeof *x));
        }
    }
    return OK;
}

/* in[rank][part][shard], added by the tree into its first part. */
static Status join_ranks(const Reduction *r, const Bucket *b)
{
    size_t own = reduction_own(r, b);
    float *at[TREE_DEPTH];
    TreeStack all;
    tree_start(&all, r->set.n_micro);
    for (int from = 0; from < r->ranks && own; from++) {
        TreeStack theirs;
        tree_range(&theirs, r->set.n_micro, from * r->n_local, r->n_local, NULL);
        for (int p = 0; p < theirs.n; p++) {
            int top = all.n, n = tree_push(&all, theirs.node[p]);
            at[top] = r->in + (size_t)(from * r->n_part + p) * b->shard;
            for (; n > 0; n--, top--) TRY(sweep_add(r->device, at[top - 1], at[top], own));
        }
    }
    return OK;
}

Status reduction_gather(Reduction *r, const Bucket *b, float *to, const float *part)
{
    size_t bytes = b->shard * sizeof *to;
    if (!ragged(r, b)) return comm_all_gather(r->set.comm, r->what, to, part, bytes);
    float *own = r->out + b->shard * (size_t)r->rank;
    TRY(device_copy(r->device, own, part, reduction_own(r, b) * sizeof *to));
    TRY(comm_all_gather(r->set.comm, r->what, r->out, own, bytes));
    return device_copy(r->device, to, r->out, b->count * sizeof *to);
}

Status reduction_gathered(Reduction *r, const Bucket *b, const float **whole, const float *part)
{
    *whole = r->in;
    return reduction_gather(r, b, r->in, part);
}

static Status sum_fixed(Reduction *r, const Bucket *b, int under)
{
    const float *from = values_of(r, b);
    bool packed = under || r->n_part > 1 || ragged(r, b);
    if (packed) TRY(pack(r, b, under));
    TRY(comm_all_to_all(r->set.comm, r->what, r->in, packed ? r->out : from,
                        b->shard * (size_t)r->n_part * sizeof *from));
    TRY(join_ranks(r, b));
    if (!r->set.sharded) return reduction_gather(r, b, values_of(r, b), r->in);
    return device_copy(r->device, values_of(r, b) + b->shard * (size_t)r->rank, r->in,
                       reduction_own(r, b) * sizeof *from);
}

static Status sum_fast(Reduction *r, const Bucket *b, int under)
{
    float *x = values_of(r, b);
    for (int k = under - 1; k >= 0; k--)
        TRY(sweep_add(r->device, x, kept_at(r, k, b), b->count));
    if (!r->set.sharded) return comm_all_reduce(r->set.comm, r->what, x, b->count);
    if (ragged(r, b)) TRY(device_copy(r->device, r->out, x, b->count * sizeof *x));
    TRY(comm_reduce_scatter(r->set.comm, r->what, r->in, ragged(r, b) ? r->out : x, b->shard));
    return device_copy(r->device, x + b->shard * (size_t)r->rank, r->in,
                       reduction_own(r, b) * sizeof *x);
}

/* One bucket in the rank's last micro-batch. */
static Status sum_bucket(Reduction *r, const Bucket *b)
{
    int under;
    TreeStack stack;
    TRY(join_own(r, b, &under, &stack));
    if (r->ranks == 1) return OK;
    return r->set.fast ? sum_fast(r, b, under) : sum_fixed(r, b, under);
}

Status reduction_finish(Reduction *r)
{
    CHECK(r->last);
    TRY(device_aside_wait(r->device)); /* in and out: those in the graph use them aside */
    for (int i = 0; i < r->n_bucket; i++)
        if (!r->bucket[i].placed) TRY(sum_bucket(r, &r->bucket[i]));
    return OK;
}

/* ---- buckets in the graph ------------------------------------------------------------------------ */

typedef struct {
    Reduction *reduction;
    int bucket;
} NodeArgs;

static Status run_node(const Tensor *node, Stream *s)
{
    const NodeArgs *a = node->args;
    Reduction *r = a->reduction;
    (void)s;
    if (!r->last) return OK;
    TRY(device_aside_begin(r->device));
    Status sum = sum_bucket(r, &r->bucket[a->bucket]);
    TRY(device_aside_end(r->device));
    return sum;
}

static const OpDef op_reduce_gradients = {
    .name = "reduce_gradients", .cpu = run_node, .cuda = run_node, .effect = true, .joint = true};

/* Whether t is a gradient that lies, in part, in the bucket. */
static bool overlaps(const Tensor *t, const float *first, size_t count)
{
    const float *data = t->data;
    return t->pinned && data < first + count && first < data + tensor_count(t);
}

static Tensor *last_use(const Graph *g, const float *first, size_t count)
{
    for (int i = g->n - 1; i >= 0; i--) {
        if (overlaps(g->node[i], first, count)) return g->node[i];
        for (int k = 0; k < MAX_SRC; k++)
            if (g->node[i]->src[k] && overlaps(tensor_root(g->node[i]->src[k]), first, count))
                return g->node[i];
    }
    return NULL;
}

void reduction_place(Reduction *r, Graph *g)
{
    for (int i = 0; i < r->n_bucket && r->ranks > 1; i++) {
        Bucket *b = &r->bucket[i];
        Tensor *after = last_use(g, values_of(r, b), b->count);
        if (!after) continue; /* the loss does not reach it: zeros, summed at the end */
        NodeArgs args = {r, i};
        graph_scope_push(g, "%s", r->what);
        Tensor *t =
            graph_node(g, &op_reduce_gradients, 1, (int[]){1}, 0, NULL, &args, sizeof args);
        graph_scope_pop(g);
        if (t) graph_move_behind(g, after);
        b->placed = t != NULL;
    }
}
