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
 * One thread at a time.
 */
#ifndef PARAMS_H
#define PARAMS_H
#include "exec/device.h"
#include "weights/safetensors.h"

typedef enum { LAYOUT_SAME, LAYOUT_OIHW } ParamLayout;   /* in files: as ours, or [k,c,r,s] of our [k,r,s,c] */

typedef enum {
    INIT_ZERO, INIT_ONE,
    INIT_NORMAL,          /* deviation `scale`                                            */
    INIT_TRUNCATED,       /* normal of deviation `scale` cut at +-2                       */
    INIT_UNIFORM          /* +-scale: torch's default for conv and linear is 1/sqrt(fan in) */
} ParamInit;

typedef struct {
    const char *name;     /* published, "down_blocks.0.resnets.0.conv1.weight"; in the store's arena */
    int         ndim, dim[MAX_DIM];
    ParamLayout layout;
    ParamInit   init;
    float       scale;
    bool        state;      /* running averages: saved, never trained */
    bool        integer;    /* num_batches_tracked: one I64 in files, one float here */
    bool        trainable;
    size_t      offset, count;  /* in floats, in the block */
} Param;

typedef struct {
    Param  *param;  int n, cap;      /* owned */
    size_t  count;                   /* floats in the block, each parameter's start rounded up to 16 */
    float  *value, *grad;            /* owned: device memory, NULL before alloc; grad NULL unless asked for */
    Device *device;
    Arena   arena;
} ParamStore;                        /* starts as {0} */

void   params_free(ParamStore *s);

/* A leaf of g for the parameter scope.name. Registers it at first sight; afterwards shapes must
 * agree, and once the store is allocated an unknown name is a graph error. */
Tensor *param(Graph *g, ParamStore *s, const char *name, ParamLayout layout, int ndim, const int *dim,
              ParamInit init, float scale);
Tensor *param_state(Graph *g, ParamStore *s, const char *name, int ndim, const int *dim, ParamInit init, bool integer);

Status params_alloc(ParamStore *s, Device *d, bool with_grad);   /* zeroed values */
void   params_init(ParamStore *s, uint32_t seed);                /* every value, by Philox (seed, name) */
void   params_freeze(ParamStore *s, const char *prefix);         /* trainable = false for names that start so */
void   params_bind(Graph *g);            /* gives the leaves of g their addresses; before exec_new */
void   params_pin_grads(Graph *g);       /* after graph_backward: gradients go to the stores' grad blocks; a
                                            trainable parameter that the loss does not reach keeps zeros */

/* Files. Errors list missing, unexpected and mis-shaped tensors by name, with both shapes. `prefix` is put
 * before the names in the file ("" usually); `optional` names (comma list of prefixes) may be missing. */
Status params_load(ParamStore *s, const char *path, const char *prefix, const char *optional);
typedef enum { SAVE_F32, SAVE_F16 } SaveDtype;
Status params_save(const ParamStore *s, const float *value /* host or NULL: the store's */, const char *path,
                   SaveDtype dtype, const char *const *metadata, int n_metadata);
Status params_read(const ParamStore *s, float *host);            /* the whole block */
Status params_write(ParamStore *s, const float *host);
#endif
