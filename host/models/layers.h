/* layers.h - an op with its parameters under the names PyTorch gives them ("conv1.weight").
 *
 * name is a path below the graph's scope. First values are PyTorch's: weight and bias of
 * convolutions and linear layers uniform in +-1/sqrt(fan in), norms one and zero. A NULL x gives
 * NULL, as with the ops.
 */
#ifndef LAYERS_H
#define LAYERS_H
#include "models/params.h"
#include "ops/ops.h"

/* k filters of size x size with bias, "same" padding (size - 1) / 2 */
Tensor *layer_conv(Graph *g, ParamStore *s, const char *name, Tensor *x, int k, int size,
                   int stride);
Tensor *layer_conv_args(Graph *g, ParamStore *s, const char *name, Tensor *x, int k, int size,
                        bool bias, ConvArgs a);
Tensor *layer_linear(Graph *g, ParamStore *s, const char *name, Tensor *x, int k, bool bias);
/* A linear layer that a LoRA may change: where s has an adapter, y = W x + b + B A x with
 * NAME.lora_A.weight [rank, c] and NAME.lora_B.weight [k, rank] of the adapter's store; at first A
 * is normal with deviation 1 / rank, as diffusers' scripts have it, and B zero. */
Tensor *layer_adapted(Graph *g, ParamStore *s, const char *name, Tensor *x, int k, bool bias);
Tensor *layer_groupnorm(Graph *g, ParamStore *s, const char *name, Tensor *x, int groups, float eps,
                        Act act);
Tensor *layer_layernorm(Graph *g, ParamStore *s, const char *name, Tensor *x, float eps);
#endif
