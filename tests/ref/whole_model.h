/* whole_model.h - a model of host/models with random weights and inputs, forward and every gradient, on
 * a device or by twins.
 *
 * The gradient is that of sum(y * dy) over all outputs, dy random.
 */
#ifndef WHOLE_MODEL_H
#define WHOLE_MODEL_H
#include "models/params.h"
#include "ref/ref.h"

enum { WHOLE_OUT = 2, WHOLE_VALUES = 1024, WHOLE_VOCAB = 23 };

/* Records the model; returns the number of outputs, each fp32. Inputs are made with whole_input(), but
 * for ids (I32, below WHOLE_VOCAB) and one named "time" (0 .. 999). */
typedef int (*WholeBuild)(Graph *g, ParamStore *s, Tensor *out[WHOLE_OUT]);
Tensor *whole_input(Graph *g, const char *name, int n, int h, int w, int c); /* wants a gradient */

/* Weights (as the model starts, and what starts as ones or zeros random about that) and inputs.
 *
 * lift > 0, of models whose norms end in relu: biases of norms are about that many deviations, gains
 * about 1, and the weights of a filter's tap sum to 0. Values then lie about `lift` everywhere, borders
 * included, and few of them below 0. */
typedef struct {
    WholeBuild build;
    bool sampling; /* no gradients; weights held, as well as what build() holds */
    uint32_t seed;
    float *block; /* owned: values of the store */
} WholeDraw;
void whole_draw(WholeDraw *d, WholeBuild build, bool sampling, uint32_t seed, double lift);
void whole_draw_free(WholeDraw *d);

/* Outputs, then the gradients of all leaves that have one; the same order each time. */
typedef struct {
    int n, n_out;
    char *name[WHOLE_VALUES]; /* owned, as the values */
    size_t count[WHOLE_VALUES];
    double *value[WHOLE_VALUES];
} WholeValues;
void whole_on_device(WholeValues *v, const WholeDraw *d, const char *device, Dtype act);
/* rounding: 0, or as in ref_run_rounded(). margin: as in ref_margin(), or NULL. */
void whole_by_twins(WholeValues *v, const WholeDraw *d, Dtype act, double rounding, double *margin);
void whole_values_free(WholeValues *v);
#endif
