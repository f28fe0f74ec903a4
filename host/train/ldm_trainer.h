/* ldm_trainer.h - fine-tunes (or trains from new weights) one latent diffusion model on films.
 *
 * Writes below `out`: model/ (a diffusers-layout folder of the averaged weights; with
 * synthesis.weights = raw, or ldm.ema_decay = 0, of the last ones), history.json (losses by step),
 * and while it runs latents.safetensors and checkpoints/, removed when model/ is complete. A second
 * call continues the first bit for bit; a finished one returns at once.
 *
 * With ldm.lora_rank the UNet's weights rest and low-rank changes of its attention are trained;
 * pytorch_lora_weights.safetensors then has those, as diffusers' load_lora_weights reads them, and
 * model/ the weights with them merged.
 *
 * The ranks of `comm` train one model together (step.h) and get the same Status, but where one of
 * them fails on its own; rank 0 writes.
 *
 * Objective: mean over samples of w(t) * |prediction - target|^2 per element; target = noise or v,
 * w = min-SNR. AdamW, EMA, clipping, accumulation as in [ldm].
 */
#ifndef LDM_TRAINER_H
#define LDM_TRAINER_H
#include "base/log.h"
#include "config/config.h"
#include "exec/device.h"
#include "train/cost.h"
#include "train/ldm_data.h"

typedef struct {
    const Config *config;   /* [study] seed, [data] size, [ldm], [synthesis] weights */
    const char *base, *out; /* folders */
    const char *name;       /* for progress lines: "LDM bacteria" */
    const LdmFilm *train, *prior, *val;
    int n_train, n_prior, n_val;
    const char *identity; /* hash over everything the result depends on; a checkpoint of another
                             identity is refused */
    long stop_after;      /* tests: act as if a stop was requested after this step; 0 = never */
    int minutes;          /* stop cleanly after so many minutes; 0 = no limit */
    Comm *comm;           /* attached to the device; NULL: alone */
} LdmJob;

Status ldm_train(const LdmJob *job, Device *d, Log *log);
/* Of the job, of which config, base and the numbers of films are looked at. The base's weights need not
 * be there. */
Status ldm_measure(Cost *cost, const LdmJob *job, Device *counting);
#endif
