/* compvis.c - names of Stable Diffusion's original code, made from those of diffusers. */
#include "models/compvis.h"
#include <stdio.h>
#include <string.h>

typedef struct {
    const char *ours, *theirs;
} Pair;

/* What follows a prefix of the table, under its other prefix; false where none fits. */
static bool by_table(char out[PARAM_NAME], const char *top, const char *name, const Pair *pair,
                     size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t m = strlen(pair[i].ours);
        if (strncmp(name, pair[i].ours, m)) continue;
        snprintf(out, PARAM_NAME, "%s%s%s", top, pair[i].theirs, name + m);
        return true;
    }
    *out = 0;
    return false;
}

#define TABLE(t) t, sizeof t / sizeof *t

/* ---- UNet ------------------------------------------------------------------------------- */

static const char UNET[] = "model.diffusion_model.";
static const Pair unet_ends[] = {{"time_embedding.linear_1.", "time_embed.0."},
                                 {"time_embedding.linear_2.", "time_embed.2."},
                                 {"conv_in.", "input_blocks.0.0."},
                                 {"conv_norm_out.", "out.0."},
                                 {"conv_out.", "out.2."},
                                 {"mid_block.attentions.0.", "middle_block.1."}};
static const Pair unet_resnet[] = {
    {"norm1.", "in_layers.0."},          {"conv1.", "in_layers.2."},
    {"time_emb_proj.", "emb_layers.1."}, {"norm2.", "out_layers.0."},
    {"conv2.", "out_layers.3."},         {"conv_shortcut.", "skip_connection."}};

/* The first of a down block's or an up block's places in the one count. */
static int first_place(const UnetConfig *c, int block, bool up)
{
    int at = up ? 0 : 1; /* conv_in is the first input block */
    for (int i = 0; i < block && i < c->n_block; i++)
        at += 1 + c->layers[up ? c->n_block - 1 - i : i]; /* with the down- or the upsampler's */
    return at;
}

void compvis_unet_name(char out[PARAM_NAME], const char *name, const UnetConfig *c)
{
    char top[96];
    int i, j, n = 0;
    if (by_table(out, UNET, name, TABLE(unet_ends))) return;
    if (sscanf(name, "mid_block.resnets.%d.%n", &j, &n) == 1 && n) {
        snprintf(top, sizeof top, "%smiddle_block.%d.", UNET, 2 * j);
        by_table(out, top, name + n, TABLE(unet_resnet));
        return;
    }
    bool up = !strncmp(name, "up_", 3);
    const char *kind = up ? "output" : "input";
    name += up ? 3 : !strncmp(name, "down_", 5) ? 5 : 0;
    if (n = 0, sscanf(name, "blocks.%d.resnets.%d.%n", &i, &j, &n) == 2 && n) {
        snprintf(top, sizeof top, "%s%s_blocks.%d.0.", UNET, kind, first_place(c, i, up) + j);
        by_table(out, top, name + n, TABLE(unet_resnet));
    } else if (n = 0, sscanf(name, "blocks.%d.attentions.%d.%n", &i, &j, &n) == 2 && n) {
        snprintf(out, PARAM_NAME, "%s%s_blocks.%d.1.%s", UNET, kind, first_place(c, i, up) + j,
                 name + n);
    } else if (n = 0, sscanf(name, "blocks.%d.downsamplers.0.conv.%n", &i, &n) == 1 && n) {
        snprintf(out, PARAM_NAME, "%sinput_blocks.%d.0.op.%s", UNET,
                 first_place(c, i + 1, false) - 1, name + n);
    } else if (n = 0, sscanf(name, "blocks.%d.upsamplers.0.conv.%n", &i, &n) == 1 && n) {
        snprintf(out, PARAM_NAME, "%soutput_blocks.%d.%d.conv.%s", UNET,
                 first_place(c, i + 1, true) - 1, c->up_attention[i] ? 2 : 1, name + n);
    }
}

/* ---- autoencoder ------------------------------------------------------------------------- */

static const char VAE[] = "first_stage_model.";
static const Pair vae_attention[] = {{"group_norm.", "norm."},
                                     {"to_q.", "q."},
                                     {"to_k.", "k."},
                                     {"to_v.", "v."},
                                     {"to_out.0.", "proj_out."}};
static const Pair vae_resnet[] = {{"conv_shortcut.", "nin_shortcut."}, {"", ""}};
static const Pair vae_ends[] = {
    {"conv_norm_out.", "norm_out."}, {"conv_in.", "conv_in."}, {"conv_out.", "conv_out."}};

void compvis_vae_name(char out[PARAM_NAME], const char *name, const KlConfig *c)
{
    char half[16], top[96];
    int i, j, n = 0;
    *out = 0;
    if (!strncmp(name, "quant_conv.", 11) || !strncmp(name, "post_quant_conv.", 16)) {
        snprintf(out, PARAM_NAME, "%s%s", VAE, name);
        return;
    }
    if (sscanf(name, "%15[a-z].%n", half, &n) != 1 || !n) return;
    name += n;
    snprintf(top, sizeof top, "%s%s.", VAE, half);
    if (by_table(out, top, name, TABLE(vae_ends))) return;
    bool up = !strncmp(name, "up_", 3);
    const char *kind = up ? "up" : "down", *rest = name + (up ? 3 : 5);
    if (n = 0, sscanf(name, "mid_block.resnets.%d.%n", &j, &n) == 1 && n) {
        snprintf(top, sizeof top, "%s%s.mid.block_%d.", VAE, half, j + 1);
        by_table(out, top, name + n, TABLE(vae_resnet));
    } else if (n = 0, sscanf(name, "mid_block.attentions.0.%n", &n) == 0 && n) {
        snprintf(top, sizeof top, "%s%s.mid.attn_1.", VAE, half);
        by_table(out, top, name + n, TABLE(vae_attention));
    } else if (n = 0, sscanf(rest, "blocks.%d.resnets.%d.%n", &i, &j, &n) == 2 && n) {
        if (up) i = c->n_block - 1 - i;
        snprintf(top, sizeof top, "%s%s.%s.%d.block.%d.", VAE, half, kind, i, j);
        by_table(out, top, rest + n, TABLE(vae_resnet));
    } else if (n = 0, sscanf(rest, "blocks.%d.%*[a-z].0.conv.%n", &i, &n) == 1 && n) {
        if (up) i = c->n_block - 1 - i;
        snprintf(out, PARAM_NAME, "%s%s.%s.%d.%ssample.conv.%s", VAE, half, kind, i, kind,
                 rest + n);
    }
}

/* ---- text encoders ----------------------------------------------------------------------- */

void compvis_text_name(char out[PARAM_NAME], const char *name)
{
    snprintf(out, PARAM_NAME, "cond_stage_model.transformer.%s", name);
}

static const char OPENCLIP[] = "cond_stage_model.model.";
static const Pair openclip_ends[] = {
    {"text_model.embeddings.token_embedding.", "token_embedding."},
    {"text_model.embeddings.position_embedding.weight", "positional_embedding"},
    {"text_model.final_layer_norm.", "ln_final."}};
static const Pair openclip_layer[] = {
    {"layer_norm1.", "ln_1."},
    {"layer_norm2.", "ln_2."},
    {"mlp.fc1.", "mlp.c_fc."},
    {"mlp.fc2.", "mlp.c_proj."},
    {"self_attn.out_proj.", "attn.out_proj."},
    {"self_attn.q_proj.", "attn.in_proj_"}, /* then "weight" or "bias" */
    {"self_attn.k_proj.", "attn.in_proj_"},
    {"self_attn.v_proj.", "attn.in_proj_"}};

void compvis_openclip_name(char out[PARAM_NAME], int *third, const char *name)
{
    static const char *const part[] = {".q_proj.", ".k_proj.", ".v_proj."};
    char top[96];
    int i, n = 0;
    *third = -1;
    if (by_table(out, OPENCLIP, name, TABLE(openclip_ends))) return;
    if (sscanf(name, "text_model.encoder.layers.%d.%n", &i, &n) != 1 || !n) return;
    snprintf(top, sizeof top, "%stransformer.resblocks.%d.", OPENCLIP, i);
    by_table(out, top, name + n, TABLE(openclip_layer));
    for (int k = 0; k < 3; k++)
        if (strstr(name, part[k])) *third = k;
}
