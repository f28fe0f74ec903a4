/* autoencoder_trainer.h - fine-tunes (or trains from new weights) an AutoencoderKL or
 * AutoencoderTiny on films.
 *
 * Writes below `out`: model/ (config.json as in the base, weights under diffusers' names: averaged
 * ones where autoencoder.ema_decay > 0), history.json, and while it runs checkpoints/, removed when
 * model/ is complete. A second call continues the first bit for bit; a finished one returns at
 * once.
 *
 * Loss, films in [0, 1] as three equal channels, y what comes back of x:
 *   l1_weight * mean |y - x| + mse_weight * mean (y - x)^2 + kl_weight * KL + perceptual_weight * d
 * KL (AutoencoderKL only) is the divergence of the latent's distribution from the standard normal,
 * summed over a film's latent, mean over films: diffusers' posterior.kl().mean(). In training y is
 * decoded from a sample of the distribution, in validation from its mean. d is the distance of
 * perceptual.h by the network in perceptual_weights, which rests.
 */
#ifndef AUTOENCODER_TRAINER_H
#define AUTOENCODER_TRAINER_H
#include "base/log.h"
#include "comm/comm.h"
#include "config/config.h"

typedef struct {
    const Config *config; /* [study] seed, [data] size, loader_threads, [autoencoder] */
    const char *base;     /* folder of the autoencoder itself */
    const char *out;
    const char *name; /* for progress lines */
    const char *const *train, *const *val; /* films' paths */
    int n_train, n_val;
    const char *identity; /* hash over everything the result depends on */
    long stop_after; /* tests: as if a stop was requested after this many steps; 0 = never */
    int minutes;     /* stop cleanly after so many minutes; 0 = no limit */
    Comm *comm;      /* attached to the device; its ranks train together, as in ldm_trainer.h */
} AutoencoderJob;

/* Whether this base, the perceptual weights and these settings (frozen too) fit, found from configs
 * and headers of files in a moment. */
Status autoencoder_train_check(const Config *c, const char *base);

Status autoencoder_train(const AutoencoderJob *job, Device *d, Log *log);
#endif
