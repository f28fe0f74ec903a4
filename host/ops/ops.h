/* ops.h - everything a model may be built from, one line of mathematics each.
 *
 * Shapes: x[n,h,w,c] images, [n,t,d] tokens, [n,c] vectors; weights [k,r,s,c]; "..." any leading
 * dimensions. Floating (graph.h: storage) unless I32 is said. A NULL tensor or a shape that does not fit leaves
 * its reason in the graph and returns NULL. Args structs are public: kernels of tests (the
 * twins in tests/ref) read them too.
 */
#ifndef OPS_H
#define OPS_H
#include "graph/graph.h"

typedef struct { int stride, top, left, bottom, right; } ConvArgs;      /* zero padding, pixels */
typedef struct { ConvArgs conv; Act act; } AfterArgs;                   /* of what fusions.h makes */
enum { AFTER_X, AFTER_W, AFTER_B, AFTER_V, AFTER_R, AFTER_X2 };         /* its sources (op_after.c) */
typedef struct { int heads, causal; } AttentionArgs;
typedef struct { int groups; float eps; Act act; } GroupnormArgs;
typedef struct { float eps; } LayernormArgs;
typedef struct { float eps, momentum; int train, relu; } BatchnormArgs; /* momentum of the new batch */
/* ranks that share a batch, of which this is `rank`; comm: NULL where there is one */
typedef struct { BatchnormArgs norm; int ranks, rank; struct Comm *comm; } BatchSyncArgs;
typedef struct { float alpha, beta; } ScaleArgs;
typedef struct { float scale[4], shift[4]; } ChannelAffineArgs;
typedef struct { float least, most; } ClampArgs;
typedef struct { int from; } SliceArgs;
typedef struct { int size, stride, pad; } PoolArgs;
typedef struct { int dim, flip; float shift; } TimestepArgs;
typedef struct { float rate; uint32_t stream; uint32_t element; } DropoutArgs;
typedef struct { float offset; uint32_t stream; } NoiseArgs;
typedef struct { float smoothing; } CrossEntropyArgs;
typedef enum { PREDICT_NOISE, PREDICT_VELOCITY, PREDICT_SAMPLE } Prediction;
typedef struct { int guided; Prediction prediction; float guidance; } DdimArgs;

/* ---- matrix ops (kernels_matrix.h) ------------------------------------------------------ */
/* y[n,p,q,k] = b[k] + sum over r,s,c of x[n, p*stride+r-top, q*stride+s-left, c] * w[k,r,s,c] */
Tensor *conv2d(Graph *g, Tensor *x, Tensor *w, Tensor *b /* or NULL */, ConvArgs a);
/* y[...,k] = x[...,c] . w[k,c] + b[k]. x[n,c] is one vector for each image, which a CPU sums in double:
 * slow for many. Rows of tokens or pixels are x[n,t,c]. */
Tensor *linear(Graph *g, Tensor *x, Tensor *w, Tensor *b /* or NULL */);
/* softmax(q.k' / sqrt(dh)) . v per head; q[n,tq,d], k and v[n,tk,d]; side 0: lse[n,heads,tq]; causal: key <= query */
Tensor *attention(Graph *g, Tensor *q, Tensor *k, Tensor *v, int heads, bool causal);

/* ---- norms ------------------------------------------------------------------------------ */
/* act(group_norm(x) * gain[c] + bias[c]) over groups of channels and all positions of [n,...,c];
 * side 0: stats[n,groups,2] mean, 1/std */
Tensor *groupnorm(Graph *g, Tensor *x, Tensor *gain, Tensor *bias, int groups, float eps, Act act);
/* over the last dimension; side 0: stats[rows,2] */
Tensor *layernorm(Graph *g, Tensor *x, Tensor *gain, Tensor *bias, float eps);
/* relu?(batch_norm(x[n,h,w,c])); mean[c], var[c] are KIND_STATE. train: statistics of the batch (biased variance), and
 * state = (1-momentum)*state + momentum*batch (unbiased variance), an effect. else: state's statistics.
 * side 0: stats[c,2] */
Tensor *batchnorm(Graph *g, Tensor *x, Tensor *gain, Tensor *bias, Tensor *mean, Tensor *var, float eps,
                  float momentum, bool train, bool relu);

/* The same in training, of the batch that all ranks of comm (NULL: this one) have parts of, as many rows each. */
Tensor *batchnorm_sync(Graph *g, Tensor *x, Tensor *gain, Tensor *bias, Tensor *mean, Tensor *var, float eps,
                       float momentum, bool relu, struct Comm *comm);

/* ---- elementwise ------------------------------------------------------------------------- */
Tensor *silu(Graph *g, Tensor *x);              /* x / (1 + exp(-x))                                */
Tensor *gelu(Graph *g, Tensor *x);              /* x * (1 + erf(x / sqrt 2)) / 2                    */
Tensor *quick_gelu(Graph *g, Tensor *x);        /* x / (1 + exp(-1.702 x))                          */
Tensor *mish(Graph *g, Tensor *x);              /* x * tanh(ln(1 + exp(x)))                         */
Tensor *relu(Graph *g, Tensor *x);
Tensor *soft_clamp(Graph *g, Tensor *x);        /* 3 * tanh(x / 3)                                  */
Tensor *clamp(Graph *g, Tensor *x, float least, float most); /* gradient 0 outside, as in torch      */
Tensor *geglu(Graph *g, Tensor *x);             /* [...,2d] -> value * gelu(gate), value first      */
Tensor *add(Graph *g, Tensor *a, Tensor *b);    /* same shape                                       */
Tensor *add_scaled(Graph *g, Tensor *a, float alpha, Tensor *b, float beta); /* alpha*a + beta*b    */
Tensor *scale_shift(Graph *g, Tensor *x, float alpha, float beta);           /* alpha*x + beta      */
Tensor *add_channel(Graph *g, Tensor *x, Tensor *v);    /* x[n,...,c] + v[n,c]                      */
Tensor *add_rows(Graph *g, Tensor *x, Tensor *p);       /* x[n,t,d] + p[t,d] (rows 0..t-1 of a longer p) */
Tensor *channel_affine(Graph *g, Tensor *x, const float *scale, const float *shift); /* constants, c <= 4 */
/* x / keep where kept, else 0; rng: I32[3] input {seed, step, first sample}: kept by Philox(seed,
 * a.stream, step, sample), element within the sample */
Tensor *dropout(Graph *g, Tensor *x, Tensor *rng, float rate, uint32_t stream);

/* The same values stored otherwise, F32 or BF16; x itself where it is stored so already, and what a
 * cast to F32 was made from where that was BF16. */
Tensor *cast(Graph *g, Tensor *x, Dtype dtype);

/* ---- shape ------------------------------------------------------------------------------- */
Tensor *reshape(Graph *g, Tensor *x, int ndim, const int *dim);     /* a view */
Tensor *concat(Graph *g, int n, Tensor *const *x);                  /* along the last dimension, n <= 6 */
Tensor *slice(Graph *g, Tensor *x, int from, int count);            /* x[..., from:from+count]          */
Tensor *upsample(Graph *g, Tensor *x, int h, int w);                /* nearest, to [n,h,w,c], not smaller */
Tensor *upsample2(Graph *g, Tensor *x);                             /* to [n,2h,2w,c] */
/* windows clipped to the image; side 0: index of the maximum in its image (I32) */
Tensor *maxpool(Graph *g, Tensor *x, int size, int stride, int pad);
Tensor *avgpool(Graph *g, Tensor *x, int size, int stride, int pad);/* padding counts, as in torchvision */
Tensor *global_avgpool(Graph *g, Tensor *x);                        /* [n,h,w,c] -> [n,c]               */

/* ---- lookups and diffusion --------------------------------------------------------------- */
/* ids I32 [n,t], table [v,d] -> [n,t,d]; an id outside is ERR_INPUT */
Tensor *embedding(Graph *g, Tensor *ids, Tensor *table);
/* t[n] -> [n,dim]: cos and sin of t * 10000^(-i/(dim/2 - shift)), the angle in fp32; flip: cosines first */
Tensor *timestep_embedding(Graph *g, Tensor *t, int dim, bool flip, float shift);
/* y[i] = c[i,0]*a[i] + c[i,1]*b[i] for each sample i of a,b[n,...], c[n,2]: q(x_t | x_0), v targets */
Tensor *mix_samples(Graph *g, Tensor *a, Tensor *b, Tensor *c);
/* mix_samples of x and noise by mix; side 0: by target. The noise is drawn, by Philox(seed, a.stream,
 * step, sample) of key I32 [n,4] = seed, step, sample (low, high word); offset: deviation of what is
 * added for each channel (STREAM_NOISE_OFFSET). */
Tensor *noise_samples(Graph *g, Tensor *x, Tensor *key, Tensor *mix, Tensor *target,
                      NoiseArgs a);
/* One DDIM step. pred[n,...] or, guided, [2n,...] = unconditional then conditional, combined as
 * u + guidance*(c-u). coef[6] input: sqrt(ab), sqrt(1-ab), sqrt(ab'), sqrt(1-ab'-s^2), s,
 * number of the step. noise[n,...] or NULL (eta 0) or I32 [n,3] of seed and sample (low, high word): then
 * drawn by Philox(seed, STREAM_STEP, number, sample). */
Tensor *ddim_step(Graph *g, Tensor *x, Tensor *pred, Tensor *noise, Tensor *coef, DdimArgs a);

/* ---- losses ------------------------------------------------------------------------------ */
/* [1]: sum over i of weight[i] * mean over elements of (x[i]-target[i])^2, divided by n */
Tensor *weighted_mse(Graph *g, Tensor *x, Tensor *target, Tensor *weight);
/* [1]: the same with |x[i]-target[i]|; its gradient is 0 where they are equal */
Tensor *weighted_l1(Graph *g, Tensor *x, Tensor *target, Tensor *weight);
/* mean + exp(logvar/2) * noise, same shapes; noise is a constant */
Tensor *sample_gaussian(Graph *g, Tensor *mean, Tensor *logvar, Tensor *noise);
/* [1]: sum over i of weight[i] * KL(N(mean[i], exp(logvar[i])) | N(0, 1)), summed over elements, divided by n */
Tensor *gaussian_kl(Graph *g, Tensor *mean, Tensor *logvar, Tensor *weight);
/* [1]: sum w[label]*(-log softmax) / sum w[label], label I32[n], -1 = left out; weight[k] or NULL;
 * smoothing as torch; side 0: probabilities[n,k] */
Tensor *cross_entropy(Graph *g, Tensor *logits, Tensor *label, Tensor *weight, float smoothing);

/* Every op, forward and backward, by name order of host/ops/op_table.c; for tests and tools. */
extern const OpDef *const op_table[];
extern const int op_table_count;
#endif
