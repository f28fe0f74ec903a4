/* test_perceptual.c - the perceptual distance is its formula written out from the features, a
 * decoder's gradient through it is what central differences of the double twins say, and the
 * network that looks rests. With the trunk in samples/. */
#include "base/random.h"
#include "models/autoencoder.h"
#include "models/perceptual.h"
#include "ref/ref.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define TRUNK SOURCE_DIR "/samples/trunk.safetensors"
#define KL                                                                                         \
    "{\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [4, 4, 4, 4], "                  \
    "\"norm_num_groups\": 2, \"layers_per_block\": 1, \"latent_channels\": 2, "                    \
    "\"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\", "                      \
    "\"DownEncoderBlock2D\", \"DownEncoderBlock2D\"], \"up_block_types\": [\"UpDecoderBlock2D\", " \
    "\"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\"]}"

static Device *device;
static Log *quiet;
static uint32_t seed;

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

static Tensor *input(Graph *g, const char *name, int ndim, const int *dim)
{
    return graph_leaf(g, KIND_INPUT, DTYPE_F32, name, ndim, dim);
}

static float *noise(const Tensor *t, uint64_t which)
{
    size_t n = tensor_count(t);
    float *v = malloc(n * sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < n; i++)
        v[i] = (float)random_uniform((RandomKey){seed, STREAM_TEST, 1, which}, (uint32_t)i);
    return v;
}

/* Sets an input, in the executor or (e NULL) as doubles for the twins. */
static void give(Exec *e, Tensor *t, const float *v)
{
    if (e) require(exec_write(e, t, v));
    else
        for (size_t i = 0; i < tensor_count(t); i++) ref_data(t)[i] = v[i];
}

/* ---- the formula -------------------------------------------------------------------------- */

enum { FILMS = 2 };

/* Features of films [n,h,w,3] in [0, 1]: three heap blocks, and their shapes. */
static void features(Perceptual *p, const float *film, const int dim[4], float *out[INCEPTION_TAPS],
                     int shape[INCEPTION_TAPS][4])
{
    Graph *g = graph_new();
    Tensor *x = input(g, "image", 4, dim);
    InceptionOut o = inception_v3(g, &p->store, &p->config, x, NULL, false);
    require(graph_status(g));
    params_bind(g);
    graph_finish(g, o.tap, INCEPTION_TAPS);
    Exec *e;
    require(exec_new(&e, device, g, o.tap, INCEPTION_TAPS));
    float *v = malloc(tensor_bytes(x));
    for (size_t i = 0; i < tensor_count(x); i++) v[i] = 2 * film[i] - 1;
    require(exec_write(e, x, v));
    require(exec_run(e));
    for (int i = 0; i < INCEPTION_TAPS; i++) {
        out[i] = malloc(tensor_bytes(o.tap[i]));
        memcpy(shape[i], o.tap[i]->dim, sizeof shape[i]);
        require(exec_read(e, o.tap[i], out[i]));
    }
    free(v);
    exec_free(e);
    graph_free(g);
}

/* |u(a) - u(b)|^2 at one place */
static double place(const float *a, const float *b, int c)
{
    double aa = 1e-4, bb = 1e-4, d = 0;
    for (int k = 0; k < c; k++) aa += (double)a[k] * a[k], bb += (double)b[k] * b[k];
    for (int k = 0; k < c; k++) d += pow(a[k] / sqrt(aa) - b[k] / sqrt(bb), 2);
    return d;
}

/* The distance written out. Each u of length 1 is off by some 8 roundings, so d by twice its root
 * times that, and its mean by no more than the root of the mean: *room. */
static double written_out(Perceptual *p, const float *x, const float *y, const float *weight,
                          const int dim[4], double *room)
{
    float *a[INCEPTION_TAPS], *b[INCEPTION_TAPS];
    int shape[INCEPTION_TAPS][4];
    double sum = 0, off = 8 * 0x1p-24;
    features(p, x, dim, a, shape);
    features(p, y, dim, b, shape);
    *room = 0;
    for (int i = 0; i < INCEPTION_TAPS; i++) {
        int c = shape[i][3], places = shape[i][1] * shape[i][2];
        for (int n = 0; n < FILMS; n++) {
            double d = 0;
            for (int k = 0; k < places; k++) {
                size_t at = ((size_t)n * (size_t)places + (size_t)k) * (size_t)c;
                d += place(a[i] + at, b[i] + at, c) / places;
            }
            sum += weight[n] * d / FILMS;
            *room += weight[n] * (2 * sqrt(d) * off + off * off) / FILMS;
        }
        free(a[i]);
        free(b[i]);
    }
    *room += 16 * 0x1p-24 * sum;
    return sum;
}

static void loss_is_its_formula(void **state)
{
    (void)state;
    Perceptual p;
    float loss, *before, *after;
    int extra = (int)random_below((RandomKey){seed, STREAM_TEST, 2, 0}, 0, 12);
    int dim[] = {FILMS, 75 + extra, 87 - extra, 3}, n = FILMS;
    require(perceptual_open(&p, device, TRUNK));
    before = malloc(p.store.count * sizeof *before);
    after = malloc(p.store.count * sizeof *after);
    require(params_read(&p.store, before));
    Graph *g = graph_new();
    Tensor *x = input(g, "x", 4, dim), *y = input(g, "y", 4, dim), *w = input(g, "w", 1, &n);
    x->trainable = true;
    Tensor *l = perceptual_loss(g, &p, x, y, w);
    graph_backward(g, 1, &l, NULL);
    require(graph_status(g));
    assert_non_null(x->grad);
    for (int i = 0; i < g->n; i++) /* what is of the network has no gradient */
        if (g->node[i]->kind == KIND_PARAM) assert_null(g->node[i]->grad);
    assert_null(p.store.grad);
    params_bind(g);
    Tensor *keep[] = {l, x->grad};
    graph_finish(g, keep, 2);
    Exec *e;
    require(exec_new(&e, device, g, keep, 2));
    float *a = noise(x, 0), *b = noise(y, 1), weight[FILMS] = {1, .25f};
    give(e, x, a);
    give(e, y, b);
    give(e, w, weight);
    require(exec_run(e));
    require(exec_read(e, l, &loss));
    double room, want = written_out(&p, a, b, weight, dim, &room);
    print_message("%dx%d: %.9g, written out %.9g, room %.2g\n", dim[1], dim[2], (double)loss, want,
                  room);
    assert_true(want > 0.01 && fabs(loss - want) <= room);

    give(e, x, b); /* a film is no distance from itself */
    require(exec_run(e));
    require(exec_read(e, l, &loss));
    assert_true(loss == 0);
    require(params_read(&p.store, after));
    assert_memory_equal(before, after, p.store.count * sizeof *before);
    free(a);
    free(b);
    free(before);
    free(after);
    exec_free(e);
    graph_free(g);
    perceptual_close(&p);
}

/* ---- a decoder's gradient ----------------------------------------------------------------- */

typedef struct {
    Graph *g;
    Tensor *latent, *film, *weight, *loss;
} Decoding;

static void decode(Decoding *d, Perceptual *p, ParamStore *s, const AutoencoderConfig *c)
{
    Graph *g = d->g = graph_new();
    int one = 1;
    d->latent = input(g, "latent", 4, (int[]){1, 10, 10, 2});
    d->film = input(g, "film", 4, (int[]){1, 80, 80, 3});
    d->weight = input(g, "weight", 1, &one);
    Tensor *back = autoencoder_decode(g, s, c, d->latent, false);
    d->loss = perceptual_loss(g, p, back, d->film, d->weight);
    graph_backward(g, 1, &d->loss, NULL);
    require(graph_status(g));
}

static void give_inputs(const Decoding *d, Exec *e)
{
    float *a = noise(d->latent, 2), *b = noise(d->film, 3), one = 1;
    give(e, d->latent, a);
    give(e, d->film, b);
    give(e, d->weight, &one);
    free(a);
    free(b);
}

/* Parameters of both networks into the twins' doubles; those of s moved by h in a direction. */
static void give_params(const Decoding *d, const ParamStore *s, const float *v,
                        const ParamStore *frozen, const float *still, const double *way, double h)
{
    for (int i = 0; i < d->g->n; i++) {
        Tensor *t = d->g->node[i];
        if (t->op || t->owner || (t->kind != KIND_PARAM && t->kind != KIND_STATE)) continue;
        const Param *own = params_find(s, t->name), *other = params_find(frozen, t->name);
        assert_true(own || other);
        for (size_t k = 0; k < tensor_count(t); k++)
            ref_data(t)[k] = own ? v[own->offset + k] + h * way[own->offset + k]
                                 : still[other->offset + k];
    }
}

static float *values_of(const ParamStore *s)
{
    float *v = malloc(s->count * sizeof *v);
    require(params_read(s, v));
    return v;
}

/* Do both find the same relus at work and the same maxima of pools? Where a value is within a
 * rounding of the turn, float and double have different gradients, and rightly so. */
static bool same_branches(const Graph *g, Exec *e, const Graph *twin)
{
    bool same = true;
    for (int i = 0; i < g->n && same; i++) {
        const Tensor *t = g->node[i], *t2 = twin->node[i];
        bool pool = t->op == &op_maxpool;
        if (!t2->live || (!pool && t->op != &op_batchnorm)) continue;
        const Tensor *read = pool ? t->side[0] : t;
        int32_t *index = malloc(tensor_bytes(read));
        const float *value = (const float *)(const void *)index;
        require(exec_read(e, read, index));
        for (size_t k = 0; k < tensor_count(read); k++)
            same &= pool ? index[k] == ((const int32_t *)t2->side[0]->data)[k]
                         : (value[k] > 0) == (ref_data(t2)[k] > 0);
        free(index);
    }
    return same;
}

/* Everything that decides a branch. */
static int branches(const Graph *g, Tensor **keep, int room)
{
    int n = 0;
    for (int i = 0; i < g->n && n < room; i++) {
        Tensor *t = g->node[i];
        if (t->op == &op_batchnorm) keep[n++] = t;
        if (t->op == &op_maxpool) keep[n++] = t->side[0];
    }
    assert_true(n > 100 && n < room);
    return n;
}

/* What the twins decided at relus and pools, as a number. */
static uint64_t decisions(const Graph *twin)
{
    uint64_t all = 14695981039346656037u; /* FNV-1a */
    for (int i = 0; i < twin->n; i++) {
        const Tensor *t = twin->node[i];
        bool pool = t->op == &op_maxpool;
        if (!t->live || (!pool && t->op != &op_batchnorm)) continue;
        for (size_t k = 0; k < tensor_count(t); k++)
            all = (all ^ (pool ? (uint64_t)((const int32_t *)t->side[0]->data)[k]
                               : ref_data(t)[k] > 0)) * 1099511628211u;
    }
    return all;
}

/* Elements of the longest of the sums in the loss. */
static size_t longest_sum(const Graph *g)
{
    size_t n = 0;
    for (int i = 0; i < g->n; i++)
        if (g->node[i]->op == &op_weighted_mse && tensor_count(g->node[i]->src[0]) > n)
            n = tensor_count(g->node[i]->src[0]);
    assert_true(n > 0);
    return n;
}

/* The twins' gradient against central differences of their loss along a random direction, and the
 * float one against the twins'. False if a branch forbids one of them.
 *
 * Where nothing is decided otherwise at the two ends the loss is smooth between them. Then the
 * difference is off by h^2 / 6 of the third derivative, 1e-15 of it, and by what its ends are rounded:
 * each by the rule of tests/ref/ref.h, 8 * 2^-53 * (1 + sqrt(terms)) of the loss in double. */
static bool compare(Decoding *d, const ParamStore *s, const float *grad, const ParamStore *frozen,
                    const Decoding *floats, Exec *e)
{
    const double h = 1e-7;
    double off = 0, all = 0, slope = 0, end[2];
    uint64_t decided[2];
    float *v = values_of(s), *still = values_of(frozen);
    double *way = calloc(s->count, sizeof *way);
    for (size_t i = 0; i < s->count; i++)
        way[i] = 0.1 * random_normal((RandomKey){seed, STREAM_TEST, 3, 0}, (uint32_t)i);
    ref_alloc(d->g);
    give_inputs(d, NULL);
    give_params(d, s, v, frozen, still, way, 0);
    ref_run(d->g);
    bool same = same_branches(floats->g, e, d->g);
    for (int i = 0; i < d->g->n; i++) {
        Tensor *t = d->g->node[i];
        const Param *p = t->kind == KIND_PARAM && t->grad ? params_find(s, t->name) : NULL;
        for (size_t k = 0; p && k < tensor_count(t); k++) {
            double want = ref_data(t->grad)[k];
            off += pow(grad[p->offset + k] - want, 2);
            all += want * want;
            slope += want * way[p->offset + k];
        }
    }
    for (int side = 0; side < 2; side++) {
        give_params(d, s, v, frozen, still, way, side ? h : -h);
        ref_run(d->g);
        end[side] = ref_data(d->loss)[0];
        decided[side] = decisions(d->g);
    }
    bool smooth = decided[0] == decided[1];
    double difference = (end[1] - end[0]) / (2 * h),
           room = 8 * 0x1p-53 * (1 + sqrt((double)longest_sum(d->g))) * end[0] / h;
    print_message("slope %.9g, difference %.9g, room %.2g%s; gradient's relative error %.2g%s\n",
                  slope, difference, room, smooth ? "" : ", turned on the way", sqrt(off / all),
                  same ? "" : ", on another branch");
    assert_true(all > 0 && room < 1e-5 * sqrt(all));
    if (smooth) assert_true(fabs(difference - slope) <= room);
    if (same) assert_true(sqrt(off) <= 1e-4 * sqrt(all)); /* the limit against PyTorch */
    ref_release(d->g);
    free(way);
    free(still);
    free(v);
    return same && smooth;
}

static bool one_draw(Perceptual *p, ParamStore *s, const AutoencoderConfig *c)
{
    Decoding floats, twins;
    Exec *e;
    Tensor *keep[512];
    require(params_init(s, seed));
    decode(&floats, p, s, c);
    params_pin_grads(floats.g);
    params_bind(floats.g);
    int n = branches(floats.g, keep, 511);
    keep[n++] = floats.loss;
    graph_finish(floats.g, keep, n);
    require(exec_new(&e, device, floats.g, keep, n));
    give_inputs(&floats, e);
    require(exec_run(e));
    float *grad = malloc(s->count * sizeof *grad);
    require(device_sync(device));
    require(device_read(device, grad, s->grad, s->count * sizeof *grad));

    decode(&twins, p, s, c);
    n = 0;
    keep[n++] = twins.loss;
    for (int i = 0; i < twins.g->n; i++) {
        Tensor *t = twins.g->node[i];
        if (t->kind == KIND_PARAM && t->grad && n < 512) keep[n++] = t->grad;
    }
    assert_true(n > 20 && n < 512);
    graph_finish(twins.g, keep, n);
    bool same = compare(&twins, s, grad, &p->store, &floats, e);
    free(grad);
    exec_free(e);
    graph_free(floats.g);
    graph_free(twins.g);
    return same;
}

static void decoder_learns(void **state)
{
    (void)state;
    char folder[] = "/tmp/eq-perceptual-XXXXXX", file[128];
    AutoencoderConfig c;
    Perceptual p;
    ParamStore s = {0};
    Decoding d;
    assert_non_null(mkdtemp(folder));
    snprintf(file, sizeof file, "%s/config.json", folder);
    require(file_write(file, KL, strlen(KL)));
    require(autoencoder_config_read(&c, folder));
    require(dir_remove(folder));
    require(perceptual_open(&p, device, TRUNK));
    decode(&d, &p, &s, &c); /* registers */
    graph_free(d.g);
    require(params_alloc(&s, device, true));
    int draws = 0;
    while (!one_draw(&p, &s, &c)) {
        assert_true(++draws < 20);
        seed++;
    }
    params_free(&s);
    perceptual_close(&p);
}

/* ---- refusals ----------------------------------------------------------------------------- */

static void bad_weights_are_refused(void **state)
{
    (void)state;
    Perceptual p;
    require(perceptual_open(&p, NULL, TRUNK));
    assert_null(p.store.value);
    perceptual_close(&p);
    assert_int_equal(perceptual_open(&p, NULL, SOURCE_DIR "/samples/none.safetensors"), ERR_INPUT);
    perceptual_close(&p);
    /* a file of another network, and no file of weights at all */
    assert_int_equal(perceptual_open(&p, NULL,
                                     SOURCE_DIR "/configs/models/tiny/vae/"
                                                "diffusion_pytorch_model.safetensors"),
                     ERR_INPUT);
    assert_non_null(strstr(status_message(), "expected an Inception-V3"));
    perceptual_close(&p);
    assert_int_equal(perceptual_open(&p, NULL, SOURCE_DIR "/samples/films.csv"), ERR_INPUT);
    perceptual_close(&p);
}

static int open_all(void **state)
{
    (void)state;
    seed = (uint32_t)time(NULL);
    print_message("seed %u\n", seed);
    quiet = log_new(true);
    return device_open(&device, "cpu", "auto", 2, quiet);
}

static int close_all(void **state)
{
    (void)state;
    device_close(device);
    log_free(quiet);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_is_its_formula),
        cmocka_unit_test(decoder_learns),
        cmocka_unit_test(bad_weights_are_refused),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
