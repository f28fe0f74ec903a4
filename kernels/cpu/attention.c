/* attention.c - softmax(q.k' / sqrt(dh)).v per image and head, and its gradients.
 *
 * A job is a block of ROWS queries of one image and head (forward) or one image and head
 * (backward); threads take jobs, so the arithmetic of a job does not depend on the others, nor on
 * the number of threads. A job's scores, ROWS x tk, stay in cache: nothing of tq x tk outlives it.
 * The backward pass computes the probabilities again from lse:
 *   P = exp(s - lse),  dP = dy.v',  dS = P (dP - rowsum(dy y)) / sqrt(dh),
 *   dv = P'.dy,  dq = dS.k,  dk = dS'.q.
 * Of a query that sees one key rowsum(dy y) is dP: taken as that, dS is 0 and not what rounding
 * leaves.
 */
#include "prims.h"
#include "vector_math.h"
#include <math.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <string.h>

enum { ROWS = 64 }; /* and LANES keys side by side */

/* One block of queries. Row strides are d = heads*dh for all tokens. */
typedef struct {
    size_t q, k;     /* offset of the first query and of key 0, from the tensors' starts */
    size_t lse;      /* of the first query in lse                                        */
    int first, rows; /* queries first .. first+rows-1                                    */
    int keys;        /* seen by the block                                                */
    int width;       /* of a row of scores: keys rounded up to whole vectors, which saves
                        a remainder of up to 15 keys that would be computed one by one   */
} Block;

static Block block_at(const AttentionShape *a, int image, int head, int first)
{
    size_t d = (size_t)a->heads * (size_t)a->dh;
    Block b = {.first = first, .rows = a->tq - first < ROWS ? a->tq - first : ROWS, .keys = a->tk};
    b.q = ((size_t)image * (size_t)a->tq + (size_t)first) * d + (size_t)head * (size_t)a->dh;
    b.k = (size_t)image * (size_t)a->tk * d + (size_t)head * (size_t)a->dh;
    b.lse = ((size_t)image * (size_t)a->heads + (size_t)head) * (size_t)a->tq + (size_t)first;
    if (a->causal && first + b.rows < b.keys) b.keys = first + b.rows;
    b.width = (b.keys + LANES - 1) / LANES * LANES;
    return b;
}

static int keys_of(const AttentionShape *a, const Block *b, int row)
{
    return a->causal && b->first + row + 1 < b->keys ? b->first + row + 1 : b->keys;
}

/* oneDNN's product of row-major matrices; serial inside a parallel region. c = alpha*A.B + beta*c
 */
static bool product(bool a_turned, bool b_turned, int m, int n, int k, float alpha, const float *a,
                    int lda, const float *b, int ldb, float beta, float *c, int ldc)
{
    return dnnl_sgemm(a_turned ? 'T' : 'N', b_turned ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb,
                      beta, c, ldc) == dnnl_success;
}

/* s[0..n) becomes exp(s - largest), the rest 0; returns log sum exp, and the sum in *sum. The rest
 * is computed along as -infinity: its 1e-38 are lost in a sum of at least 1. */
SIMD static float row_softmax(float *restrict s, int n, int vectors, float *sum)
{
    float top = s[0], total = 0;
    for (int i = n; i < vectors * LANES; i++) s[i] = -INFINITY;
#pragma omp simd reduction(max : top) aligned(s : 64)
    for (int i = 0; i < vectors * LANES; i++) top = s[i] > top ? s[i] : top;
#pragma omp simd reduction(+ : total) aligned(s : 64)
    for (int i = 0; i < vectors * LANES; i++) {
        s[i] = vm_exp(s[i] - top);
        total += s[i];
    }
    memset(s + n, 0, (size_t)(vectors * LANES - n) * sizeof *s);
    *sum = total;
    return top + logf(total);
}

SIMD static void row_scale(float *restrict y, float factor, int n)
{
    for (int i = 0; i < n; i++) y[i] *= factor;
}

static bool forward_block(float *y, float *lse, const float *q, const float *k, const float *v,
                          const AttentionShape *a, const Block *b, float *s)
{
    int d = a->heads * a->dh;
    float sum[ROWS];
    if (!product(false, true, b->rows, b->keys, a->dh, 1 / sqrtf((float)a->dh), q + b->q, d,
                 k + b->k, d, 0, s, b->width))
        return false;
    for (int i = 0; i < b->rows; i++)
        lse[b->lse + (size_t)i] = row_softmax(s + (size_t)i * (size_t)b->width, keys_of(a, b, i),
                                              b->width / LANES, &sum[i]);
    if (!product(false, false, b->rows, a->dh, b->keys, 1, s, b->width, v + b->k, d, 0, y + b->q,
                 d))
        return false;
    for (int i = 0; i < b->rows; i++)
        row_scale(y + b->q + (size_t)i * (size_t)d, 1 / sum[i], a->dh);
    return true;
}

static size_t score_room(const AttentionShape *a) { return (size_t)ROWS * ((size_t)a->tk + LANES); }

static Status scratch_for(float **p, size_t per_thread, Stream *s)
{
    size_t bytes = (size_t)omp_get_max_threads() * per_thread * sizeof **p;
    *p = stream_scratch(s, bytes);
    return *p ? OK : FAIL(ERR_SPACE, "no memory for %zu bytes of attention scores", bytes);
}

Status cpu_attention_fwd(float *y, float *lse, const float *q, const float *k, const float *v,
                         const AttentionShape *a, Stream *s)
{
    size_t room = score_room(a);
    int blocks = (a->tq + ROWS - 1) / ROWS, jobs = a->n * a->heads * blocks;
    float *score;
    bool good = true;
    TRY(scratch_for(&score, room, s));
#pragma omp parallel for schedule(static) reduction(&& : good)
    for (int job = 0; job < jobs; job++) {
        Block b =
            block_at(a, job / blocks / a->heads, job / blocks % a->heads, job % blocks * ROWS);
        good = forward_block(y, lse, q, k, v, a, &b, score + (size_t)omp_get_thread_num() * room) &&
               good;
    }
    return good ? OK : FAIL(ERR_SPACE, "oneDNN: a product of attention failed");
}

/* p: scores in, probabilities out; ds: dP in, dS out. Both 0 behind n. */
SIMD static void row_backward(float *restrict p, float *restrict ds, float lse, float dot,
                              float scale, int n, int vectors)
{
#pragma omp simd aligned(p, ds : 64)
    for (int i = 0; i < vectors * LANES; i++) {
        p[i] = vm_exp(p[i] - lse);
        ds[i] = p[i] * (ds[i] - dot) * scale;
    }
    memset(p + n, 0, (size_t)(vectors * LANES - n) * sizeof *p);
    memset(ds + n, 0, (size_t)(vectors * LANES - n) * sizeof *ds);
}

SIMD static float row_dot(const float *restrict a, const float *restrict b, int n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

typedef struct {
    float *dq, *dk, *dv;
    const float *dy, *y, *lse, *q, *k, *v;
} Backward;

static bool backward_block(const Backward *t, const AttentionShape *a, const Block *b, float *p,
                           float *ds)
{
    int d = a->heads * a->dh, keys = b->keys, width = b->width;
    float scale = 1 / sqrtf((float)a->dh);
    if (!product(false, true, b->rows, keys, a->dh, scale, t->q + b->q, d, t->k + b->k, d, 0, p,
                 width) ||
        !product(false, true, b->rows, keys, a->dh, 1, t->dy + b->q, d, t->v + b->k, d, 0, ds,
                 width))
        return false;
    for (int i = 0; i < b->rows; i++) {
        size_t at = (size_t)i * (size_t)width, row = b->q + (size_t)i * (size_t)d;
        int seen = keys_of(a, b, i);
        float dot = seen == 1 ? ds[at] : row_dot(t->dy + row, t->y + row, a->dh);
        row_backward(p + at, ds + at, t->lse[b->lse + (size_t)i], dot, scale, seen, width / LANES);
    }
    return product(true, false, keys, a->dh, b->rows, 1, p, width, t->dy + b->q, d, 1, t->dv + b->k,
                   d) &&
           product(true, false, keys, a->dh, b->rows, 1, ds, width, t->q + b->q, d, 1, t->dk + b->k,
                   d) &&
           product(false, false, b->rows, a->dh, keys, 1, ds, width, t->k + b->k, d, 0,
                   t->dq + b->q, d);
}

Status cpu_attention_bwd(float *dq, float *dk, float *dv, const float *dy, const float *y,
                         const float *lse, const float *q, const float *k, const float *v,
                         const AttentionShape *a, Stream *s)
{
    Backward t = {dq, dk, dv, dy, y, lse, q, k, v};
    size_t room = 2 * score_room(a);
    float *score;
    bool good = true;
    TRY(scratch_for(&score, room, s));
    size_t keys = (size_t)a->n * (size_t)a->tk * (size_t)a->heads * (size_t)a->dh;
    memset(dk, 0, keys * sizeof *dk);
    memset(dv, 0, keys * sizeof *dv);
#pragma omp parallel for schedule(static) reduction(&& : good)
    for (int job = 0; job < a->n * a->heads; job++) {
        float *p = score + (size_t)omp_get_thread_num() * room;
        for (int first = 0; first < a->tq; first += ROWS) {
            Block b = block_at(a, job / a->heads, job % a->heads, first);
            good = backward_block(&t, a, &b, p, p + room / 2) && good;
        }
    }
    return good ? OK : FAIL(ERR_SPACE, "oneDNN: a product of attention failed");
}
