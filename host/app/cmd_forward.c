/* cmd_forward.c - equipoise forward: one model on given tensors, and its backward pass.
 *
 * Files hold the published layouts (images [n,c,h,w], filters OIHW); they are turned here. A
 * tensor's layout in files and in the engine is written as a Param, which knows both.
 */
#include "app/commands.h"
#include "app/forward.h"
#include "app/options.h"
#include "base/signal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- tensors and files ------------------------------------------------------------------ */

/* t as the file has it, under `prefix` and the port's name. */
static Param as_filed(Forward *f, const char *prefix, const ForwardPort *port, const Tensor *t)
{
    Param p = {.name = arena_printf(&f->names, "%s%s", prefix, port->name),
               .ndim = t->ndim,
               .count = tensor_count(t),
               .layout = port->kind == PORT_IMAGE ? LAYOUT_OIHW : LAYOUT_SAME};
    memcpy(p.dim, t->dim, sizeof p.dim);
    return p;
}

static Status find_input(const SafeTensor **t, Forward *f, const ForwardPort *port)
{
    *t = st_find(&f->file, port->name);
    if (!*t)
        return FAIL(ERR_INPUT, "%s: found no tensor \"%s\", expected one for %s", f->from,
                    port->name, f->model->name);
    bool scalar = port->kind == PORT_TIME && !(*t)->ndim;
    if ((*t)->ndim != port->ndim && !scalar)
        return FAIL(ERR_INPUT, "%s: tensor \"%s\": found %d dimensions, expected %d", f->from,
                    port->name, (*t)->ndim, port->ndim);
    for (int i = 0; i < (*t)->ndim; i++)
        if ((*t)->dim[i] < 1 || (*t)->dim[i] > 1 << 24)
            return FAIL(ERR_INPUT,
                        "%s: tensor \"%s\": found a dimension of %lld, expected 1 or more", f->from,
                        port->name, (long long)(*t)->dim[i]);
    return OK;
}

static Status make_inputs(Forward *f)
{
    for (int i = 0; i < MAX_PORTS && f->model->in[i].name; i++) {
        const ForwardPort *port = &f->model->in[i];
        const SafeTensor *t;
        TRY(find_input(&t, f, port));
        int64_t d[MAX_DIM] = {0};
        memcpy(d, t->dim, (size_t)t->ndim * sizeof *d);
        int dim[MAX_DIM] = {(int)d[0], (int)d[1], (int)d[2], (int)d[3]};
        int image[MAX_DIM] = {(int)d[0], (int)d[2], (int)d[3], (int)d[1]};
        bool image_port = port->kind == PORT_IMAGE, ids = port->kind == PORT_IDS;
        if (port->kind == PORT_TIME && dim[0] < 2) dim[0] = f->input[0]->dim[0]; /* one for all */
        f->input[i] = graph_leaf(f->graph, KIND_INPUT, ids ? DTYPE_I32 : DTYPE_F32, port->name,
                                 port->ndim, image_port ? image : dim);
        if (!f->input[i]) return FAIL(ERR_INPUT, "%s: %s", f->from, f->graph->error);
        f->input[i]->trainable = f->grad && (image_port || port->kind == PORT_ROWS);
    }
    return OK;
}

/* From the file, turned, to the executor's tensor. one: the file may have one value for all. */
static Status write_floats(Forward *f, Tensor *to, const Param *p, bool one, float *file_values,
                           float *values)
{
    int64_t dim[MAX_DIM];
    const SafeTensor *t = st_find(&f->file, p->name);
    if (!one || t->count != 1) TRY(st_expect(&t, &f->file, p->name, param_file_shape(p, dim), dim));
    if (safe_dtype_kind(t->dtype) == 'i') {
        int32_t *whole = (int32_t *)values;
        TRY(st_read_i32(&f->file, t, whole));
        for (size_t i = 0; i < t->count; i++) file_values[i] = (float)whole[i];
    } else {
        TRY(st_read_f32(&f->file, t, file_values));
    }
    for (size_t i = t->count; i < p->count; i++) file_values[i] = file_values[0];
    for (size_t i = 0; i < p->count; i++)
        if (!isfinite(file_values[i]))
            return FAIL(ERR_INPUT, "%s: tensor \"%s\": element %zu is %f, expected a finite float",
                        f->from, p->name, i, (double)file_values[i]);
    param_from_file(p, values, file_values);
    return exec_write(f->exec, to, values);
}

static Status write_ids(Forward *f, Tensor *to, const Param *p, int32_t *ids)
{
    TRY(st_read_i32(&f->file, st_find(&f->file, p->name), ids));
    for (size_t i = 0; i < p->count; i++)
        if (ids[i] < 0 || ids[i] >= f->vocab)
            return FAIL(ERR_INPUT, "%s: tensor \"%s\": element %zu: found id %d, expected 0..%d",
                        f->from, p->name, i, (int)ids[i], f->vocab - 1);
    return exec_write(f->exec, to, ids);
}

static Status no_memory(const Param *p)
{
    return FAIL(ERR_SPACE, "no memory for tensor \"%s\" of %zu values", p->name, p->count);
}

static Status write_input(Forward *f, Tensor *to, const char *prefix, const ForwardPort *port)
{
    Param p = as_filed(f, prefix, port, to);
    float *a = calloc(p.count, sizeof *a), *b = calloc(p.count, sizeof *b);
    Status s = !a || !b                 ? no_memory(&p)
               : port->kind == PORT_IDS ? write_ids(f, to, &p, (int32_t *)a)
                                        : write_floats(f, to, &p, port->kind == PORT_TIME, a, b);
    free(a);
    free(b);
    return s;
}

/* ---- the run ---------------------------------------------------------------------------- */

/* Models speak of images as the engine has them. */
static Status misfit(const Forward *f)
{
    bool turned = strstr(f->graph->error, "[n,h,w,") != NULL;
    return FAIL(ERR_INPUT, "%s: %s%s", f->from, f->graph->error,
                turned ? "; in the file [n,c,h,w]" : "");
}

static Status record(Forward *f)
{
    f->graph = device_graph(f->device);
    TRY(make_inputs(f));
    TRY(f->model->build(f));
    if (f->graph->error[0]) return misfit(f);
    while (f->n_output < MAX_PORTS && f->output[f->n_output]) f->n_output++;
    TRY(params_alloc(&f->params, f->device, f->grad));
    if (f->model->names) TRY(f->model->names(f));
    TRY(params_load(&f->params, f->weights_file, &f->how));
    TRY(signal_check());

    Tensor *keep[2 * MAX_PORTS];
    int n_keep = f->n_output;
    memcpy(keep, f->output, sizeof f->output);
    if (f->grad) {
        for (int i = 0; i < f->n_output; i++)
            f->dy[i] = graph_leaf(f->graph, KIND_INPUT, DTYPE_F32, "dy", f->output[i]->ndim,
                                  f->output[i]->dim);
        graph_backward(f->graph, f->n_output, f->output, f->dy);
        params_pin_grads(f->graph);
        for (int i = 0; i < MAX_PORTS; i++)
            if (f->input[i] && f->input[i]->grad) keep[n_keep++] = f->input[i]->grad;
    }
    params_bind(f->graph);
    graph_finish(f->graph, keep, n_keep);
    return exec_new(&f->exec, f->device, f->graph, keep, n_keep);
}

static Status run(Forward *f)
{
    for (int i = 0; i < MAX_PORTS && f->input[i]; i++)
        TRY(write_input(f, f->input[i], "", &f->model->in[i]));
    for (int i = 0; i < MAX_PORTS && f->dy[i]; i++)
        TRY(write_input(f, f->dy[i], "grad.", &f->model->out[i]));
    TRY(exec_run(f->exec));
    return signal_check();
}

/* ---- results ---------------------------------------------------------------------------- */

typedef struct {
    Param param;          /* name and layouts */
    const Tensor *tensor; /* its values: of the executor, */
    const float *block;   /* or in a parameter block (device memory) */
    size_t n_bad;         /* NaN or infinite, seen in writing; */
    size_t first_bad;     /* in the file's layout */
} Result;

static int list_results(Forward *f, Result *r)
{
    int n = 0;
    for (int i = 0; i < f->n_output; i++)
        r[n++] = (Result){.param = as_filed(f, "", &f->model->out[i], f->output[i]),
                          .tensor = f->output[i]};
    for (int i = 0; i < MAX_PORTS && f->input[i]; i++)
        if (f->input[i]->grad)
            r[n++] = (Result){.param = as_filed(f, "grad.", &f->model->in[i], f->input[i]),
                              .tensor = f->input[i]->grad};
    for (int i = 0; i < f->params.n; i++) {
        Param p = f->params.param[i];
        char name[PARAM_NAME];
        param_file_name(name, &p, &f->how);
        p.name = arena_strdup(&f->names, name);
        if (f->train && p.state && !p.integer)
            r[n++] = (Result){.param = p, .block = f->params.value + p.offset};
        if (!f->grad || p.state) continue;
        p.name = arena_printf(&f->names, "grad.%s", name);
        r[n++] = (Result){.param = p, .block = f->params.grad + p.offset};
    }
    return n;
}

static Status write_result(Forward *f, SafeWriter *w, Result *r)
{
    size_t count = r->param.count;
    float *a = calloc(count, sizeof *a), *b = calloc(count, sizeof *b);
    Status s = !a || !b    ? no_memory(&r->param)
               : r->tensor ? exec_read(f->exec, r->tensor, a)
                           : device_read(f->device, a, r->block, count * sizeof *a);
    if (!s) param_to_file(&r->param, b, a);
    for (size_t i = count; !s && i-- > 0;)
        if (!isfinite(b[i])) r->n_bad++, r->first_bad = i;
    if (!s) s = st_write_f32(w, b, count);
    free(a);
    free(b);
    return s;
}

/* The first result with bad numbers, in the order of the file. */
static Status check_results(const Forward *f, const Result *r, int n)
{
    int first = n, n_bad = 0;
    for (int i = n; i-- > 0;)
        if (r[i].n_bad) first = i, n_bad++;
    if (!n_bad) return OK;
    return FAIL(ERR_NUMERIC,
                "%s: %d of %d tensors have NaN or infinite values, expected none; the first: "
                "\"%s\", %zu of %zu, from element %zu on",
                f->to, n_bad, n, r[first].param.name, r[first].n_bad, r[first].param.count,
                r[first].first_bad);
}

/* Bad numbers are written too: they are what is looked for. */
static Status write_results(Forward *f)
{
    size_t room = (size_t)(2 * MAX_PORTS + 2 * f->params.n);
    Result *r = calloc(room, sizeof *r);
    SafeSpec *spec = calloc(room, sizeof *spec);
    CHECK(r && spec);
    SafeWriter w = {0};
    int n = list_results(f, r);
    for (int i = 0; i < n; i++) {
        spec[i] = (SafeSpec){.name = r[i].param.name, .dtype = SAFE_F32};
        spec[i].ndim = param_file_shape(&r[i].param, spec[i].dim);
    }
    Status s;
    TRY_OR(done, s, device_sync(f->device));
    TRY_OR(done, s, st_write_begin(&w, f->to, n, spec, 0, NULL));
    for (int i = 0; i < n; i++) {
        TRY_OR(done, s, signal_check());
        TRY_OR(done, s, write_result(f, &w, &r[i]));
    }
    TRY_OR(done, s, st_write_commit(&w));
    s = check_results(f, r, n);
done:
    st_write_abandon(&w);
    free(r);
    free(spec);
    return s;
}

/* ---- the command ------------------------------------------------------------------------ */

static const Option option[] = {
    {"weights", "PATH", "folder with config.json, or a file whose config follows from its shapes",
     NULL},
    {"in", "A.safetensors",
     "the model's inputs; with --grad also grad.OUTPUT for each output; other tensors are ignored",
     NULL},
    {"out", "B.safetensors", "gets the outputs; with --grad also grad.INPUT and grad.PARAMETER",
     NULL},
    {"grad", NULL, "run the backward pass too", NULL},
    {"device", "D", "auto, cpu, cuda or cuda:N", "auto"},
    {"precision", "P", "fp32, bf16 (on a GPU) or auto: bf16 on a GPU", "fp32"},
    {"train", NULL,
     "inception: batch statistics and auxiliary head, no dropout; moved averages are written too",
     NULL},
    {"dump", "FILE",
     "writes the recorded graph: for Graphviz where FILE ends in .dot, else as text", NULL},
    {"force", NULL, "let --out and --dump replace files", NULL},
};
static const Usage usage = {
    .command = "forward",
    .arguments = "MODEL",
    .help =
        "Runs one model on given tensors, images as [n,c,h,w], and its backward pass: "
        "the debugging door to "
        "PyTorch.\nMODEL, inputs -> outputs:\n"
        "  unet          sample, timestep, encoder_hidden_states -> sample\n"
        "  vae-encode    sample -> mean, logvar  (AutoencoderKL; images in [-1, 1])\n"
        "  vae-decode    latent -> sample\n"
        "  taesd-encode  sample -> latent     (images in [0, 1]; also TAEF2)\n"
        "  taesd-decode  latent -> sample\n"
        "  text          input_ids -> last_hidden_state\n"
        "  inception     image -> logits, aux_logits\n"
        "NaN or infinite inputs are refused. Where results have some, B.safetensors is written all "
        "the same, and the exit code is 7.",
    .least = 1,
    .most = 1,
    .option = option,
    .n_option = sizeof option / sizeof *option,
};

static Status dump(const Graph *g, const char *path)
{
    Text t = {0};
    size_t n = strlen(path);
    if (n > 4 && !strcmp(path + n - 4, ".dot")) graph_dump_dot(g, &t);
    else graph_dump_text(g, &t);
    Status s = file_write(path, t.s, t.n);
    free(t.s);
    return s;
}

static Status check_options(Forward *f, const Options *o)
{
    const char *dump, *read[] = {f->weights, f->from, f->weights_file};
    TRY(options_out(&f->to, o, "out", "", 3, read));
    TRY(options_out(&dump, o, "dump", "", 3, read));
    if (dump && file_same_place(dump, f->to))
        return FAIL(ERR_USAGE, "forward: --dump and --out are both \"%s\", expected two files",
                    f->to);
    if (f->train && !f->model->has_training)
        return FAIL(ERR_USAGE,
                    "forward: found --train, expected none: %s computes the same in training",
                    f->model->name);
    return OK;
}

Status cmd_forward(App *app, int argc, char **argv)
{
    Options o;
    Forward f = {0};
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    TRY(forward_find_model(&f.model, o.argument[0]));
    TRY(options_need(&f.weights, &o, "weights"));
    TRY(options_need(&f.from, &o, "in"));
    TRY(options_need(&f.to, &o, "out"));
    f.grad = options_has(&o, "grad");
    f.train = options_has(&o, "train");

    Status s;
    TRY_OR(done, s, model_find(&f.config_file, &f.weights_file, f.weights));
    TRY_OR(done, s, check_options(&f, &o));
    TRY_OR(done, s, st_open(&f.file, f.from));
    TRY_OR(done, s,
           device_open(&f.device, options_text(&o, "device"), options_text(&o, "precision"), 0,
                       app->log));
    TRY_OR(done, s, record(&f));
    if (options_has(&o, "dump")) TRY_OR(done, s, dump(f.graph, options_text(&o, "dump")));
    TRY_OR(done, s, run(&f));
    s = write_results(&f);
done:
    exec_free(f.exec);
    graph_free(f.graph);
    params_free(&f.params);
    device_close(f.device);
    st_close(&f.file);
    arena_free(&f.names);
    free(f.config_file);
    free(f.weights_file);
    return s;
}
