/* ref.h - twins: every op again in double, in the most obvious way, as its specification; and the
 * harness that holds ops against them.
 *
 * A twin reads and writes the same Tensor records as the op, but all F32 data is double (I32
 * data stays int32_t). Each file ref_<family>.c exports its twins and its test cases; ref.c
 * lists the files.
 */
#ifndef REF_H
#define REF_H
#include "exec/exec.h"
#include "ops/op.h"
#include "ops/ops.h"

typedef struct {
    const OpDef *op;
    void (*run)(const Tensor *y);
} Twin;

/* For ops whose bf16 kernels must round in their middle: twins that round there. They stand in for
 * the others in a naive run. */
extern const Twin ref_naive[];
extern const int ref_naive_count;
double ref_bf16(double v); /* rounded to bf16, in ref_run_rounded() to its scale times one */

/* One case: builds y from leaves made with case_leaf(). The harness fills every F32 leaf with
 * normals (or lets fill do it), differentiates sum(y * dy) for a random dy, and compares
 *   the twin's gradients with central differences in double: error below 1e-6 of the larger of
 *     the element and the gradient's largest element, in one of two steps;
 *   the CPU kernels' outputs and gradients with the twins': error below
 *     8 * 2^-24 * (1 + sqrt(terms)) times the tensor's largest element, terms = length of the
 *     longest sum behind an element; and 4 times the most that any of its elements moves where
 *     inputs and results of nodes are off by a rounding;
 *   two runs of the CPU kernels bit by bit, memory poisoned with NaN before each.
 * Inputs that are no variables (labels, ids, coefficients) are I32 or have trainable = false. */
typedef struct {
    const char *name;
    Tensor *(*build)(Graph *g);
    /* NULL: normals */
    void (*fill)(const Tensor *leaf, double *value, size_t count, uint32_t seed);
    double terms;
} OpCase;

typedef struct {
    const Twin *twin;
    int n_twin;
    const OpCase *cases;
    int n_case;
} RefFamily;

/* A leaf that is a variable, one that is none, a KIND_STATE, and the default fill. */
Tensor *case_leaf(Graph *g, const char *name, int ndim, const int *dim);
Tensor *case_const(Graph *g, const char *name, Dtype dtype, int ndim, const int *dim);
Tensor *case_state(Graph *g, const char *name, int ndim, const int *dim);
double case_normal(uint32_t seed, const Tensor *leaf, size_t i);

const Twin *ref_find(const OpDef *op); /* NULL if there is none */

/* Runs one case on a device ("cpu", "cuda"), activations stored as `act`; returns the number of
 * failures, each printed. seen[i] is set for each row of op_table that ran. */
int ref_check(const OpCase *c, const char *device, Dtype act, uint32_t seed, bool *seen);

extern const RefFamily *const ref_family[];
extern const int ref_family_count;

/* A graph run by twins: allocates double data for every live tensor. */
void ref_run(Graph *g); /* all live nodes in order; leaves must be filled */
/* Naive bf16: each node's outputs rounded to how they are stored, bf16 ones to `scale` times a number
 * of bf16. 1: as a device stores them; scales between 1 and 2 give other draws of the same errors.
 * Leaves must have been rounded so, by ref_round(). */
void ref_run_rounded(Graph *g, double scale);
void ref_round(const Tensor *t /* or NULL */, double scale);
void ref_alloc(Graph *g);
void ref_release(Graph *g);
static inline double *ref_data(const Tensor *t) { return t->data; }

/* Of a graph that ref_run() has run: the least distance of a relu's argument from 0 and of the two
 * largest of a maxpool's window from one another, in units of the root mean square of all there. How
 * far values may be off before a gradient jumps. Equal ones, zeros of a relu before, do not count. */
double ref_margin(const Graph *g);
#endif
