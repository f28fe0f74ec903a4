/* duplicates.c - exact and near duplicates of films. */
#include "data/duplicates.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static Status difference_hash(uint64_t *out, const Image *im)
{
    Image small;
    TRY(image_resize(&small, im, 8, 9));
    uint64_t bits = 0;
    for (int y = 0; y < 8; y++)
        for (int x = 0; x < 8; x++)
            bits = bits << 1 | (small.pixel[y * 9 + x] < small.pixel[y * 9 + x + 1]);
    *out = bits;
    image_free(&small);
    return OK;
}

Status fingerprint_make(Fingerprint *f, const Image *im)
{
    Image small;
    Hash *h = hash_new();
    hash_add(h, (int32_t[]){im->h, im->w}, 2 * sizeof(int32_t));
    hash_add(h, im->pixel, (size_t)im->h * (size_t)im->w * sizeof *im->pixel);
    hash_end(h, f->hash);
    TRY(difference_hash(&f->difference, im));
    TRY(image_resize(&small, im, THUMB, THUMB));
    for (int i = 0; i < THUMB * THUMB; i++) f->thumb[i] = (uint8_t)lrintf(255 * small.pixel[i]);
    image_free(&small);
    return OK;
}

double fingerprint_correlation(const Fingerprint *a, const Fingerprint *b)
{
    uint32_t x = 0, y = 0, xx = 0, yy = 0, xy = 0; /* below 4096 * 255^2 < 2^32: exact */
    for (int i = 0; i < THUMB * THUMB; i++) {
        uint32_t u = a->thumb[i], v = b->thumb[i];
        x += u;
        y += v;
        xx += u * u;
        yy += v * v;
        xy += u * v;
    }
    double n = THUMB * THUMB, vx = n * xx - (double)x * x, vy = n * yy - (double)y * y;
    return vx > 0 && vy > 0 ? (n * xy - (double)x * y) / sqrt(vx * vy) : 0;
}

static int by_place(const void *a, const void *b)
{
    const NearPair *x = a, *y = b;
    return x->a != y->a ? x->a - y->a : x->b - y->b;
}

static bool is_near(NearPair *p, const Fingerprint *const *film, int a, int b)
{
    int bits = __builtin_popcountll(film[a]->difference ^ film[b]->difference);
    if (bits > NEAR_BITS) return false;
    *p = (NearPair){a, b, bits, fingerprint_correlation(film[a], film[b])};
    return p->correlation > NEAR_CORRELATION;
}

Status near_pairs(NearPair **pair, int *n_pair, const Fingerprint *const *film, int n)
{
    NearPair *found = NULL;
    int n_found = 0, cap = 0;
    bool full = false;
#pragma omp parallel for schedule(dynamic, 16)
    for (int a = 0; a < n; a++)
        for (int b = a + 1; film[a] && b < n; b++) {
            NearPair p;
            if (!film[b] || !is_near(&p, film, a, b)) continue;
#pragma omp critical(near_pairs)
            {
                if (n_found == cap) {
                    NearPair *more = realloc(found, (size_t)(2 * cap + 64) * sizeof *found);
                    if (more) {
                        found = more;
                        cap = 2 * cap + 64;
                    }
                }
                if (n_found < cap) found[n_found++] = p;
                else full = true;
            }
        }
    *pair = NULL;
    *n_pair = 0;
    if (full) {
        free(found);
        return FAIL(ERR_SPACE, "no memory for %d pairs of near duplicates", n_found);
    }
    if (n_found) qsort(found, (size_t)n_found, sizeof *found, by_place);
    *pair = found;
    *n_pair = n_found;
    return OK;
}

int *union_new(int n)
{
    int *parent = malloc((size_t)(n + 1) * sizeof *parent);
    CHECK(parent);
    for (int i = 0; i < n; i++) parent[i] = i;
    return parent;
}

int union_find(int *parent, int i)
{
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
}

void union_join(int *parent, int i, int j)
{
    i = union_find(parent, i);
    j = union_find(parent, j);
    if (i < j) parent[j] = i;
    else parent[i] = j;
}
