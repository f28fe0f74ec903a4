/* graph.h - the recorded computation.
 *
 * A Graph is an append-only list of tensors. Building a model appends the forward tensors;
 * graph_backward() appends the gradient tensors after them. The order of the list is the
 * order of execution, so there is no scheduler.
 *
 * A tensor is one of
 *   a leaf     KIND_INPUT (written before a run), KIND_PARAM (weights), KIND_STATE (running
 *              averages, updated by the op that reads them);
 *   a node     op computes it from src[];
 *   a side     a further output of its owner node (statistics, log-sum-exp, dk beside dq);
 *   a view     another shape on the bytes of view_of.
 *
 * Ownership: tensors, names and args live in the graph's arena and die in graph_free(). The
 * bytes at t->data belong to the plan (plan.h) for nodes and sides, to the executor for
 * inputs, and to the model's parameter store for parameters, state and pinned gradients.
 *
 * Errors: the first misuse is kept in the graph and every later builder returns NULL, so model
 * code reads like formulas. Check once, with graph_status().
 */
#ifndef GRAPH_H
#define GRAPH_H
#include "base/arena.h"
#include "base/text.h"
#include "kernels_base.h"

enum { MAX_DIM = 4, MAX_SRC = 6, MAX_SIDE = 2, MAX_SCOPE = 16 };
typedef enum { KIND_INPUT, KIND_PARAM, KIND_STATE, KIND_ACT } Kind;
typedef struct Graph  Graph;
typedef struct Tensor Tensor;

typedef struct OpDef {
    const char *name;
    Status (*cpu)(const Tensor *y, Stream *s);      /* computes y->data and sides; NULL: a view */
    Status (*cuda)(const Tensor *y, Stream *s);     /* the same on a GPU; NULL where not built  */
    void   (*vjp)(Graph *g, Tensor *y, Tensor *dy); /* appends backward nodes; NULL: has none   */
    double (*flops)(const Tensor *y);               /* NULL: bound by memory, not counted       */
    bool   effect;                                  /* updates state: runs always and once      */
    bool   joint;                                   /* ranks run it together                    */
} OpDef;

struct Tensor {
    const OpDef *op;
    Tensor      *src[MAX_SRC];
    const void  *args;            /* the op's own settings, in the arena                 */
    Tensor      *side[MAX_SIDE];  /* further outputs of this node                        */
    Tensor      *owner;           /* of a side: the node that writes it                  */
    Tensor      *view_of;         /* of a view: whose bytes these are; never itself a view */
    int          ndim, dim[MAX_DIM];
    Dtype        dtype;
    Kind         kind;
    bool         trainable;       /* wants a gradient, or is computed from one that does */
    bool         live;            /* reaches an output; set by graph_finish              */
    bool         pinned;          /* data was given by graph_pin; not planned            */
    bool         held;            /* graph_hold, or computed from held ones alone        */
    int          id;              /* index in g->node, and time of execution             */
    int          segment;         /* recompute segment, 0 = none                         */
    Tensor      *grad;
    void        *data;
    const char  *name;            /* path in the model, "down_blocks.0.resnets.0.conv2d" */
};

struct Graph {
    Tensor **node;   int n, cap;
    Arena    arena;
    char     scope[256];           /* path being recorded, "" at the top            */
    size_t   scope_end[MAX_SCOPE]; /* its length before each push                   */
    int      n_scope;
    Dtype    act;                  /* storage of activations and of weights of 2 and more dimensions */
    int      segment, n_segment;   /* segment being recorded; how many there are    */
    char     error[256];           /* "" while all is well                          */
};

Graph  *graph_new(void);
void    graph_free(Graph *g);                                  /* accepts NULL */
Status  graph_status(const Graph *g);                          /* ERR_USAGE with the first misuse */
Tensor *graph_fail(Graph *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Names: everything recorded between push and pop has `name` in its path. */
void    graph_scope_push(Graph *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void    graph_scope_pop(Graph *g);
char   *graph_path(Graph *g, const char *name);   /* scope and name joined, in the arena */

Tensor *graph_leaf(Graph *g, Kind kind, Dtype dtype, const char *name, int ndim, const int *dim);
Tensor *graph_node(Graph *g, const OpDef *op, int ndim, const int *dim, int n_src,
                   Tensor *const *src, const void *args, size_t args_size);
/* Storage. Where g->act is bf16, inputs stay fp32 (ids int32) and models cast them (ops.h). A node of
 * two or more dimensions is stored as its first source of two or more is, ids apart; without one as
 * g->act. So all behind a cast to bf16 is bf16, and all behind a cast to fp32 (losses, outputs) is
 * fp32. Vectors and scalars, sides, and all gradients of parameters are fp32. */
Tensor *graph_side(Graph *g, Tensor *owner, int ndim, const int *dim); /* after its owner; fp32 */
/* A node or side of another type: losses and gradients of parameters are fp32, dk beside dq is not. */
Tensor *graph_typed(Tensor *t /* or NULL */, Dtype dtype);
Tensor *graph_view(Graph *g, const OpDef *op, Tensor *of, int ndim, const int *dim);

/* Activations recorded between begin and end are dropped after use and computed again in the
 * backward pass. Segments do not nest. */
void    graph_recompute_begin(Graph *g);
void    graph_recompute_end(Graph *g);

void    grad_add(Graph *g, Tensor *t, Tensor *contribution);   /* t->grad += contribution, of one dtype */

/* Reverse mode from n outputs y[i] with gradients dy[i] (NULL: ones). Afterwards t->grad is the
 * gradient of each trainable t that they depend on, or NULL where they do not; of a t that is computed again
 * (graph_recompute_begin) it is only a part. */
void    graph_backward(Graph *g, int n, Tensor *const *y, Tensor *const *dy);

/* Lets the newest node stand, and run, right behind `after` and its sides; what stood there gets new
 * ids. Before graph_finish. */
void    graph_move_behind(Graph *g, const Tensor *after);

/* Lets node or side `t` be written at `data` (device memory of the caller) instead of planned
 * memory; it counts as an output. */
void    graph_pin(Tensor *t, void *data);

/* Leaf `t` seldom changes: what depends on held leaves alone is computed when one of them was written,
 * not in each run, and keeps its memory where others read it. Before graph_finish. A held parameter
 * must not change while an Exec of the graph exists. */
void    graph_hold(Tensor *t /* or NULL */);

void    graph_finish(Graph *g, Tensor *const *output, int n_output);  /* marks what is live and held */

/* A line a live tensor: id, op, shape, sources, name. Equal graphs give equal texts. */
void    graph_dump_text(const Graph *g, Text *out);
void    graph_dump_dot(const Graph *g, Text *out);  /* for Graphviz: a box a node, an arrow a source */

/* The two ops that the reverse pass itself needs; host/ops defines them. */
extern const OpDef op_add, op_fill;

static inline size_t tensor_count(const Tensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= (size_t)t->dim[i];
    return n;
}
static inline size_t tensor_bytes(const Tensor *t)
{
    return tensor_count(t) * dtype_bytes(t->dtype);
}
static inline Tensor *tensor_root(Tensor *t) { return t->view_of ? t->view_of : t; }
bool        tensor_same_shape(const Tensor *a, const Tensor *b);
const char *tensor_shape_text(const Tensor *t, char text[64]);       /* "[2,16,16,64]" */
#endif
