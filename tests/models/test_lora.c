/* test_lora.c - merging LoRA files in every form of their names, against sums written out here; and
 * what is refused. (Against PEFT's own files: tests/parity/lora.py.) */
#include "base/random.h"
#include "models/lora.h"
#include "ops/ops.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h> /* needs those above */

enum { OUT = 5, IN = 7, RANK = 3, PIXELS = 6 };
static char folder[] = "/tmp/test_lora-XXXXXX", file[64];
static RandomKey key;
static uint32_t drawn;
static Device *device;
static ParamStore unet, text;

static float draw(void) { return (float)random_normal(key, drawn++); }

static void require(Status s)
{
    if (s) fail_msg("%s", status_message());
}

static void make(ParamStore *s, const char *linear, const char *conv)
{
    Graph *g = graph_new();
    param(g, s, linear, LAYOUT_SAME, 2, (int[]){OUT, IN}, INIT_NORMAL, 1);
    if (conv) param(g, s, conv, LAYOUT_OIHW, 4, (int[]){OUT, 2, 3, IN}, INIT_NORMAL, 1);
    require(graph_status(g));
    graph_free(g);
    require(params_alloc(s, device, false));
    require(params_init(s, key.seed));
}

/* The pair of one module: values a[RANK][IN * pixels], b[OUT][RANK]. */
typedef struct {
    const char *a, *b, *alpha; /* names; alpha NULL: none */
    bool conv;
    float va[RANK * IN * PIXELS], vb[OUT * RANK], valpha;
} Pair;

static void write_pair(Pair *p, const char *meta)
{
    SafeWriter w;
    SafeSpec spec[3] = {
        {.name = p->a, .ndim = p->conv ? 4 : 2, .dim = {RANK, IN, 2, 3}},
        {.name = p->b, .ndim = p->conv ? 4 : 2, .dim = {OUT, RANK, 1, 1}},
        {.name = p->alpha},
    };
    SafeMeta about = {"lora_adapter_metadata", meta};
    size_t na = RANK * IN * (p->conv ? PIXELS : 1);
    for (size_t i = 0; i < na; i++) p->va[i] = draw();
    for (size_t i = 0; i < OUT * RANK; i++) p->vb[i] = draw();
    p->valpha = 1 + fabsf(draw());
    require(st_write_begin(&w, file, p->alpha ? 3 : 2, spec, meta ? 1 : 0, &about));
    require(st_write_f32(&w, p->va, na));
    require(st_write_f32(&w, p->vb, OUT * RANK));
    if (p->alpha) require(st_write_f32(&w, &p->valpha, 1));
    require(st_write_commit(&w));
}

/* Merges and compares with the sum written out; factor: alpha / rank, or / sqrt(rank). */
static void check_merge(Pair *p, ParamStore *s, int index, double factor)
{
    const Param *q = &s->param[index];
    float before[OUT * IN * PIXELS], other[OUT * IN * PIXELS];
    const Param *rest = &s->param[!index];
    double scale = draw();
    memcpy(before, s->value + q->offset, q->count * sizeof *before);
    if (s->n > 1) memcpy(other, s->value + rest->offset, rest->count * sizeof *other);
    require(lora_merge(&unet, &text, file, scale));
    for (int i = 0; i < OUT; i++)
        for (int c = 0; c < IN; c++)
            for (int x = 0; x < (p->conv ? PIXELS : 1); x++) {
                double sum = 0, size = 0;
                int pixels = p->conv ? PIXELS : 1, at = (i * pixels + x) * IN + c;
                for (int k = 0; k < RANK; k++) {
                    double term = (double)p->vb[i * RANK + k] * p->va[(k * IN + c) * pixels + x];
                    sum += term;
                    size += fabs(term);
                }
                double want = before[at] + scale * factor * sum;
                double limit =
                    (fabs((double)before[at]) + fabs(scale * factor) * size) * 8 * 0x1p-24;
                assert_true(fabs(s->value[q->offset + (size_t)at] - want) <= limit);
            }
    if (s->n > 1) assert_memory_equal(other, s->value + rest->offset, rest->count * sizeof *other);
}

static void every_form_merges(void **state)
{
    (void)state;
    static const char *const form[][3] = {
        {"unet.mid.attn1.to_q.lora_A.weight", "unet.mid.attn1.to_q.lora_B.weight", NULL},
        {"mid.attn1.to_q.lora_A.weight", "mid.attn1.to_q.lora_B.weight", NULL},
        {"unet.mid.attn1.to_q.lora.down.weight", "unet.mid.attn1.to_q.lora.up.weight",
         "unet.mid.attn1.to_q.alpha"},
        {"unet.mid.attn1.processor.to_q_lora.down.weight",
         "unet.mid.attn1.processor.to_q_lora.up.weight", NULL},
        {"unet.mid.attn1.to_q.lora_linear_layer.down.weight",
         "unet.mid.attn1.to_q.lora_linear_layer.up.weight", NULL},
        {"lora_unet_mid_attn1_to_q.lora_down.weight", "lora_unet_mid_attn1_to_q.lora_up.weight",
         "lora_unet_mid_attn1_to_q.alpha"},
    };
    Pair p;
    for (size_t i = 0; i < sizeof form / sizeof *form; i++) {
        p = (Pair){.a = form[i][0], .b = form[i][1], .alpha = form[i][2]};
        write_pair(&p, NULL);
        check_merge(&p, &unet, 0, p.alpha ? p.valpha / RANK : 1);
    }
    p = (Pair){.a = "unet.conv_in.lora_A.weight", .b = "unet.conv_in.lora_B.weight", .conv = true};
    write_pair(&p, NULL);
    check_merge(&p, &unet, 1, 1);
    static const char *const texts[][2] = {
        {"text_encoder.text_model.layers.0.q_proj.lora_A.weight",
         "text_encoder.text_model.layers.0.q_proj.lora_B.weight"},
        {"text_encoder.layers.0.q_proj.lora_A.weight",
         "text_encoder.layers.0.q_proj.lora_B.weight"},
        {"lora_te_text_model_layers_0_q_proj.lora_down.weight",
         "lora_te_text_model_layers_0_q_proj.lora_up.weight"},
        {"lora_te1_text_model_layers_0_q_proj.lora_down.weight",
         "lora_te1_text_model_layers_0_q_proj.lora_up.weight"},
    };
    for (int i = 0; i < 4; i++) {
        p = (Pair){.a = texts[i][0], .b = texts[i][1]};
        write_pair(&p, NULL);
        check_merge(&p, &text, 0, 1);
    }
}

#define NAMES .a = "unet.mid.attn1.to_q.lora_A.weight", .b = "unet.mid.attn1.to_q.lora_B.weight"
static void metadata_give_alpha(void **state)
{
    (void)state;
    Pair p = {NAMES};
    write_pair(&p, "{\"unet.lora_alpha\": 12, \"text_encoder.lora_alpha\": 5}");
    check_merge(&p, &unet, 0, 12.0 / RANK);
    write_pair(&p, "{\"lora_alpha\": 6, \"use_rslora\": true, \"alpha_pattern\": {}}");
    check_merge(&p, &unet, 0, 6.0 / sqrt(RANK));
    p.alpha = "unet.mid.attn1.to_q.alpha"; /* the file's own tensor goes first */
    write_pair(&p, "{\"unet.lora_alpha\": 12}");
    check_merge(&p, &unet, 0, p.valpha / RANK);
}

static void expect_refusal(const char *message)
{
    float before[600];
    assert_true(unet.count <= 600);
    memcpy(before, unet.value, unet.count * sizeof *before);
    assert_int_equal(lora_merge(&unet, &text, file, 1), ERR_INPUT);
    if (!strstr(status_message(), message) || !strstr(status_message(), file))
        fail_msg("\"%s\" lacks \"%s\"", status_message(), message);
    assert_memory_equal(before, unet.value, unet.count * sizeof *before);
}

static void misfits_are_refused(void **state)
{
    (void)state;
    Pair p = {.a = "unet.mid.attn1.to_q.weight", .b = "unet.mid.attn1.to_q.lora_B.weight"};
    write_pair(&p, NULL);
    expect_refusal("found a name that is no LoRA's");
    p = (Pair){.a = "unet.up.attn1.to_q.lora_A.weight", .b = "unet.up.attn1.to_q.lora_B.weight"};
    write_pair(&p, NULL);
    expect_refusal("unet.up.attn1.to_q.lora_A.weight\": found no such module");
    p = (Pair){.a = "text_encoder.mid.attn1.to_q.lora_A.weight", .b = "x.lora_B.weight"};
    write_pair(&p, NULL); /* the UNet's, said to be the text encoder's */
    expect_refusal("found no such module");
    p = (Pair){.a = "unet.mid.attn1.to_q.lora_A.weight",
               .b = "unet.mid.attn1.to_q.lora.down.weight"};
    write_pair(&p, NULL);
    expect_refusal("too, expected one");
    p = (Pair){.a = "unet.mid.attn1.to_q.lora_A.weight", .b = "unet.conv_in.lora_B.weight"};
    write_pair(&p, NULL);
    expect_refusal("found only one of A (down) and B (up)");
    p = (Pair){NAMES, .conv = true};
    write_pair(&p, NULL);
    expect_refusal("found A [3, 7, 2, 3] and B [5, 3, 1, 1], expected a product of [5, 7]");
    p = (Pair){.b = "unet.mid.attn1.to_q.lora_A.weight", .a = "unet.mid.attn1.to_q.lora_B.weight"};
    write_pair(&p, NULL); /* swapped */
    expect_refusal("found A [5, 3] and B [3, 7]");
    p = (Pair){NAMES};
    write_pair(&p, "{\"unet.alpha_pattern\": {\"to_q\": 1}}");
    expect_refusal("found an alpha_pattern");
    write_pair(&p, "{\"unet.use_dora\": true}");
    expect_refusal("found use_dora");
    write_pair(&p, "{\"unet.lora_alpha\": \"8\"}");
    expect_refusal("found a lora_alpha that is no number");
    write_pair(&p, "{\"unet.use_dora\"");
    expect_refusal("l.safetensors: lora_adapter_metadata: JSON byte 16: found the end");
}

/* What is found is said by its format, and what is read is said too. */
static void other_formats_are_named(void **state)
{
    (void)state;
    static const char *const form[][3] = {
        {"lora_unet_input_blocks_1_1_proj_in.lora_down.weight",
         "lora_unet_input_blocks_1_1_proj_in.lora_up.weight",
         "found Kohya's names with the blocks of single-file checkpoints, expected diffusers' or "
         "PEFT's"},
        {"lora_te2_text_model_layers_0_q_proj.lora_down.weight", "x.lora_B.weight",
         "found Kohya's names for SDXL's second text encoder"},
        {"lora_unet_mid_attn1_to_q.hada_w1_a", "lora_unet_mid_attn1_to_q.hada_w1_b",
         "found a LoHa of LyCORIS"},
        {"lora_unet_mid_attn1_to_q.lokr_w1", "lora_unet_mid_attn1_to_q.lokr_w2",
         "found a LoKr of LyCORIS"},
        {"lora_unet_mid_attn1_to_q.dora_scale", "lora_unet_mid_attn1_to_q.lora_up.weight",
         "found a DoRA"},
        {"transformer.single_blocks.0.proj.lora_A.weight",
         "transformer.single_blocks.0.proj.lora_B.weight",
         "found a LoRA of a diffusion transformer"},
        {"diffusion_model.input_blocks.1.1.proj_in.lora_A.weight", "x.lora_B.weight",
         "found names of single-file checkpoints, expected"},
        {"lora_unet_up_attn1_to_q.lora_down.weight", "lora_unet_up_attn1_to_q.lora_up.weight",
         "found no such module in the model, expected a LoRA that was made for it (the names are "
         "Kohya's)"},
    };
    for (size_t i = 0; i < sizeof form / sizeof *form; i++) {
        Pair p = {.a = form[i][0], .b = form[i][1]};
        write_pair(&p, NULL);
        expect_refusal(form[i][2]);
    }
}

static void bad_values_are_refused(void **state)
{
    (void)state;
    SafeWriter w;
    float v[OUT * RANK + RANK * IN] = {0};
    SafeSpec spec[] = {
        {.name = "unet.mid.attn1.to_q.lora_A.weight", .ndim = 2, .dim = {RANK, IN}},
        {.name = "unet.mid.attn1.to_q.lora_B.weight", .ndim = 2, .dim = {OUT, RANK}}};
    v[draw() > 0 ? 2 : RANK * IN + 2] = draw() > 0 ? NAN : INFINITY;
    require(st_write_begin(&w, file, 2, spec, 0, NULL));
    require(st_write_f32(&w, v, RANK * IN));
    require(st_write_f32(&w, v + RANK * IN, OUT * RANK));
    require(st_write_commit(&w));
    expect_refusal("element 2 is");
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) v[i] = 1e20f; /* finite, their product not */
    require(st_write_begin(&w, file, 2, spec, 0, NULL));
    require(st_write_f32(&w, v, RANK * IN));
    require(st_write_f32(&w, v + RANK * IN, OUT * RANK));
    require(st_write_commit(&w));
    float before[600];
    memcpy(before, unet.value, unet.count * sizeof *before);
    assert_int_equal(lora_merge(&unet, &text, file, 1), ERR_NUMERIC);
    assert_non_null(strstr(status_message(), "mid.attn1.to_q.weight: element 0 is inf"));
    assert_memory_equal(before, unet.value, unet.count * sizeof *before);
    require(st_write_begin(&w, file, 0, spec, 0, NULL));
    require(st_write_commit(&w));
    expect_refusal("found no tensor");
}

static int open_all(void **state)
{
    (void)state;
    key = (RandomKey){.seed = (uint32_t)time(NULL), .stream = STREAM_TEST};
    print_message("seed %u\n", key.seed);
    if (!mkdtemp(folder) || device_open(&device, "cpu", "auto", 0, NULL)) return 1;
    snprintf(file, sizeof file, "%s/l.safetensors", folder);
    make(&unet, "mid.attn1.to_q.weight", "conv_in.weight");
    make(&text, "text_model.layers.0.q_proj.weight", NULL);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    params_free(&unet);
    params_free(&text);
    device_close(device);
    return dir_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_merges),
        cmocka_unit_test(metadata_give_alpha),
        cmocka_unit_test(misfits_are_refused),
        cmocka_unit_test(other_formats_are_named),
        cmocka_unit_test(bad_values_are_refused),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
