/* params.h - the parameters of one model: names, shapes, values, gradients.
 *
 * A model builder asks for each parameter by its published name while it records a graph. The
 * first recording registers the parameters; params_alloc() then gives them one block of device
 * memory; later recordings (another batch size, another use) find the same ones. So the
 * builder is the only place where a model's parameters are written down.
 *
 * Values are one block (parameters in order of registration, then state), gradients another of
 * the same layout, so that optimizers, norms and checkpoints are single sweeps. Layouts are
 * ours ([k,r,s,c]); the published ones exist only in files, converted by load and save.
 *
 * Values and gradients are fp32. In a graph whose activations are bf16 (device_graph) parameters of
 * two and more dimensions are leaves of bf16: the copy `half`, which loading, writing and the
 * optimizer keep up to date.
 *
 * One thread at a time.
 */
#ifndef PARAMS_H
#define PARAMS_H
#include "exec/device.h"
#include "weights/safetensors.h"

/* In files: as ours, or [k,c,r,s] of our [k,r,s,c]. */
typedef enum { LAYOUT_SAME, LAYOUT_OIHW } ParamLayout;

typedef enum {
    INIT_ZERO,
    INIT_ONE,
    INIT_NORMAL,    /* deviation `scale`                                            */
    INIT_TRUNCATED, /* normal of deviation `scale` cut at +-2                       */
    INIT_UNIFORM    /* +-scale: torch's default for conv and linear is 1/sqrt(fan in) */
} ParamInit;

typedef struct {
    const char *name; /* published, "down_blocks.0.resnets.0.conv1.weight"; in the store's arena */
    int ndim, dim[MAX_DIM];
    ParamLayout layout;
    ParamInit init;
    float scale;
    bool state;   /* running averages: saved, never trained */
    bool integer; /* num_batches_tracked: one I64 in files, one float here */
    bool trainable;
    size_t offset, count; /* in floats, in the block */
} Param;

typedef struct ParamStore ParamStore;
struct ParamStore {
    Param *param;
    int n, cap;          /* owned; in order of registration */
    int next;            /* where the next one asked for probably is: builders keep their order */
    size_t count;        /* floats in the block, each parameter's start rounded up to 16 */
    size_t count_param;  /* of these before the state; set with count by params_alloc */
    float *value, *grad; /* owned: device memory, NULL before alloc; grad NULL unless asked for */
    void *half; /* owned: value in bf16, same offsets, where the device computes in it; else NULL */
    Device *device;
    Arena arena;
    /* Low-rank changes of attention's projections, trained in place of the values here: layers
     * recorded with layer_adapted() add B A x of rank adapter_rank. Borrowed; NULL: none. */
    ParamStore *adapter;
    int adapter_rank;
}; /* starts as {0} */

void params_free(ParamStore *s);

/* A leaf of g for the parameter scope.name; the same leaf each time within a graph. Registers it at
 * first sight; afterwards shapes must agree, and once the store is allocated an unknown name is a
 * graph error. NULL in a graph that has failed. The graph must not outlive the store. */
Tensor *param(Graph *g, ParamStore *s, const char *name, ParamLayout layout, int ndim,
              const int *dim, ParamInit init, float scale);
Tensor *param_state(Graph *g, ParamStore *s, const char *name, int ndim, const int *dim,
                    ParamInit init, bool integer);

size_t params_registered(const ParamStore *s); /* floats, also before the store has memory */
const Param *params_find(const ParamStore *s, const char *name); /* NULL if absent */

Status params_alloc(ParamStore *s, Device *d, bool with_grad); /* zeroed */
/* Brings `half` up to date; after every change of `value` that is not by this header's functions. */
Status params_refresh(ParamStore *s);
Status params_init(ParamStore *s, uint32_t seed);      /* every value, by Philox (seed, name) */
/* No gradient, in graphs recorded from now on, for names that start so. */
void params_freeze(ParamStore *s, const char *prefix);
/* Gives the leaves of g their addresses; before exec_new. */
void params_bind(Graph *g);
/* Holds all parameters of g (graph_hold): no store of theirs is written or trained while an Exec of g
 * exists. Before graph_finish. */
void params_hold(Graph *g);
/* After graph_backward, before graph_finish: gradients go to the stores' grad blocks. Where the
 * loss does not reach, a parameter's gradient stays zero. */
void params_pin_grads(Graph *g);

Status params_read(const ParamStore *s, float *host); /* the whole block */
Status params_write(ParamStore *s, const float *host);

/* Files: safetensors with the published names and layouts. */
enum { PARAM_NAME = 256 };
typedef struct {
    const char *prefix;   /* before every name in the file; NULL: none */
    const char *optional; /* names that start so (comma list) may be missing and stay as they are */
    const char *skip;     /* names that start so are left alone, in the file and in the store */
    /* other names in the file; NULL: the same */
    void (*rename)(char file_name[PARAM_NAME], const char *name);
} ParamFile;

/* how NULL: as published. num_batches_tracked may always be missing. Fails without touching the
 * store, listing missing, unexpected and mis-shaped tensors by name, with both shapes; a NaN or
 * infinity is refused by name. Before params_alloc() only names and shapes are compared, from the
 * file's header. */
Status params_load(ParamStore *s, const char *path, const ParamFile *how);

typedef enum { SAVE_F32, SAVE_F16 } SaveDtype;
/* value: a host block of s's layout (an average of weights, say), NULL: the store's own values. */
Status params_save(const ParamStore *s, const float *value, const char *path, SaveDtype dtype,
                   int n_meta, const SafeMeta *meta);

/* The name and the shape a parameter has in files (0 dimensions for an integer), and one
 * parameter's values, file layout from ours and back; to and from do not overlap. */
void param_file_name(char name[PARAM_NAME], const Param *p, const ParamFile *how);
int param_file_shape(const Param *p, int64_t dim[MAX_DIM]);
void param_to_file(const Param *p, float *to, const float *from);
void param_from_file(const Param *p, float *to, const float *from);
#endif
