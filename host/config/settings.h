/* settings.h - every setting of the program, in one table per section.
 *
 * The tables are the only place a setting is written down. The structs, defaults, limits, the
 * parser, --help and the resolved config.ini are generated from them, so they cannot disagree.
 *
 * A row is one of four kinds; S is the section and only passed through.
 *   INT   (S, name, default, least, most, unit, meaning)     int
 *   REAL  (S, name, default, least, most, unit, meaning)     double
 *   TEXT  (S, name, default, "a|b|c" or "" for any, meaning) char[CONFIG_TEXT]
 *         "|" instead: several texts parted by |, none of them empty, or nothing at all
 *   PATH  (S, name, default, meaning)                        char[CONFIG_TEXT], a file or folder
 * Limits belong to the range. Ratios are 0..1. Switches are INT 0..1.
 */
#ifndef SETTINGS_H
#define SETTINGS_H

/* clang-format off */
#define STUDY_SETTINGS(S, INT, REAL, TEXT, PATH)                                                  \
    TEXT(S, name,    "study", "",              "title of the report")                             \
    INT (S, seed,    0, 0, 2147483647, "",     "decides every random draw")                       \
    TEXT(S, base_note, "", "",                 "what base models were trained on; for the report") \
    TEXT(S, device,  "auto", "",               "auto, cpu, cuda or cuda:N; auto: a GPU if there is one") \
    TEXT(S, precision, "auto", "auto|fp32|bf16", "of activations; auto: bf16 on a GPU, fp32 on a CPU") \
    TEXT(S, autotune, "off", "off|read|on",    "GPU: kernels by measuring them, cuBLASLt and "    \
         "cuDNN among them; read: only what is known")                                            \
    INT (S, threads, 0, 0, 4096, "",           "processor threads; 0 = one per core")             \
    INT (S, repeats, 1, 1, 100, "",            "training seeds of each classifier")

#define DATA_SETTINGS(S, INT, REAL, TEXT, PATH)                                                   \
    TEXT(S, format,    "kermany", "kermany|folders|csv", "layout of the source")                  \
    PATH(S, source,    "",                     "folder or table of the films")                    \
    PATH(S, images,    "", "csv: folder of the table's films; empty = the table's own")           \
    INT (S, size,      256, 75, 2048, "px",    "side of the square films; Inception-V3 needs 75") \
    TEXT(S, normal,    "normal",    "",        "class without disease")                           \
    TEXT(S, disease_a, "bacteria",  "",        "first disease")                                   \
    TEXT(S, disease_b, "virus",     "",        "second disease")                                  \
    REAL(S, train_share, .7, .01, .98, "",     "of the films, by patients; the rest tests")       \
    REAL(S, val_share,   .1, .01, .98, "",     "of the films, by patients")                       \
    REAL(S, train_ratio, 0, 0, 1000, "",       "normal films per diseased one in training and "   \
         "validation, by leaving out diseased patients; 0 = all as they are")                     \
    INT (S, loader_threads, 2, 1, 256, "",     "that read and augment films")

#define CLASSIFIER_SETTINGS(S, INT, REAL, TEXT, PATH)                                             \
    PATH(S, weights,      "",                  "Inception-V3 to start from; empty = random")      \
    REAL(S, width,        1, .05, 4, "",       "times the channels of the published network")     \
    REAL(S, aux_weight,   0, 0, 1, "",         "of the auxiliary head's loss; 0 = no head")       \
    REAL(S, dropout,      .5, 0, .95, "",      "before the last layer")                           \
    INT (S, epochs,       20, 1, 100000, "",   "at most")                                         \
    INT (S, batch,        32, 1, 4096, "films", "per micro-batch: one pass")                      \
    INT (S, accumulate,   1, 1, 4096, "",      "micro-batches per step, over all ranks")          \
    TEXT(S, optimizer,    "sgd", "sgd|adamw",  "sgd: with Nesterov momentum")                     \
    REAL(S, learning_rate, 1e-3, 0, 10, "",    "at the start")                                    \
    REAL(S, momentum,     .9, 0, .9999, "",    "of sgd")                                          \
    REAL(S, weight_decay, 1e-4, 0, 1, "",      "pull of the weights to zero")                     \
    REAL(S, beta1,        .9, 0, .999999, "",  "adamw: memory of the mean")                       \
    REAL(S, beta2,        .999, 0, .999999, "", "adamw: memory of the square")                    \
    TEXT(S, schedule,     "plateau", "constant|plateau|cosine", "of the learning rate")           \
    REAL(S, plateau_factor, .5, .001, .999, "", "learning rate times this, when stuck")           \
    INT (S, plateau_patience, 5, 0, 100000, "epochs", "without a better validation")              \
    REAL(S, min_learning_rate, 1e-5, 0, 10, "", "floor of the schedule")                          \
    INT (S, patience,     10, 0, 100000, "epochs", "until it stops early; 0 = never")             \
    TEXT(S, monitor,      "loss", "loss|balanced_accuracy", "of validation: the epoch kept is the" \
         " best by it")                                                                           \
    INT (S, class_weights, 1, 0, 1, "0/1",     "weigh the loss against the imbalance")            \
    REAL(S, label_smoothing, 0, 0, .5, "",     "share of the label spread over all classes")      \
    TEXT(S, synthetic_in, "train+val", "train+val|train", "where synthetic films go")             \
    TEXT(S, threshold,    "youden", "youden|fixed", "youden: best on validation; fixed: 0.5")     \
    TEXT(S, target,       "disease", "disease|patient", "patient: pretext task without disease "  \
         "labels, for pretraining")                                                               \
    REAL(S, clip_norm,    0, 0, 1e6, "",       "limit of the gradient's norm; 0 = off")           \
    TEXT(S, frozen,       "", "",              "comma list: parameters whose names start so rest")

#define AUGMENT_SETTINGS(S, INT, REAL, TEXT, PATH)                                                \
    REAL(S, rotate_degrees, 7, 0, 180, "degrees", "at most, either way")                          \
    REAL(S, shift,      .05, 0, .5, "",        "of the side, at most, either way")                \
    REAL(S, scale,      .1, 0, .5, "",         "larger or smaller by at most this share")         \
    REAL(S, brightness, .1, 0, 1, "",          "added, at most, either way; white is 1")          \
    REAL(S, contrast,   .1, 0, 1, "",          "more or less by at most this share")              \
    INT (S, flip,       0, 0, 1, "0/1",        "mirror every other film")

#define LDM_SETTINGS(S, INT, REAL, TEXT, PATH)                                                    \
    PATH(S, base,        "",                   "model folder in diffusers' layout")               \
    TEXT(S, init,        "base", "base|random", "random: UNet and text encoder anew")             \
    TEXT(S, prediction,  "auto", "auto|epsilon|v_prediction", "auto: as the base's scheduler says")\
    INT (S, steps,       2000, 1, 100000000, "", "length of the run")                             \
    INT (S, batch,       16, 1, 4096, "films", "per micro-batch: one pass")                       \
    INT (S, accumulate,  1, 1, 4096, "",       "micro-batches per step, over all ranks")          \
    REAL(S, learning_rate, 1e-4, 0, 1, "",     "after warm-up")                                   \
    INT (S, warmup,      100, 0, 100000000, "steps", "over which the rate rises from 0")          \
    TEXT(S, schedule,    "constant", "constant|cosine|linear", "of the learning rate")            \
    REAL(S, weight_decay, 1e-2, 0, 1, "",      "adamw: pull of the weights to zero")              \
    REAL(S, beta1,       .9, 0, .999999, "",   "adamw: memory of the mean")                       \
    REAL(S, beta2,       .999, 0, .999999, "", "adamw: memory of the square")                     \
    REAL(S, epsilon,     1e-8, 1e-16, 1, "",   "adamw: added to the root of the square")          \
    REAL(S, clip_norm,   1, 0, 1e6, "",        "limit of the gradient's norm; 0 = off")           \
    REAL(S, ema_decay,   .9999, 0, .9999999, "", "of the averaged weights; 0 = off")              \
    REAL(S, min_snr_gamma, 5, 0, 1000, "",     "limit of the loss weight; 0 = off")               \
    REAL(S, caption_dropout, .1, 0, 1, "",     "share of films trained without their prompt")     \
    REAL(S, noise_offset, 0, 0, 1, "",         "of noise shared by a whole channel")              \
    REAL(S, prior_share, 0, 0, .9, "",         "of each batch drawn from normal films, to keep "  \
         "what the base knows")                                                                   \
    INT (S, lora_rank,   0, 0, 1024, "",       "train a LoRA of this rank for the UNet's "        \
         "attention; 0 = all weights")                                                            \
    INT (S, recompute,   0, 0, 1, "0/1",       "less memory, more time")                          \
    INT (S, train_text_encoder, 0, 0, 1, "0/1", "tune the text encoder too")                      \
    INT (S, validate_every, 200, 1, 100000000, "steps", "between validation losses")              \
    INT (S, checkpoint_every, 500, 1, 100000000, "steps", "between checkpoints")

#define AUTOENCODER_SETTINGS(S, INT, REAL, TEXT, PATH)                                            \
    PATH(S, base,        "",                   "folder of an AutoencoderKL or AutoencoderTiny, "  \
         "or of a model that has one")                                                            \
    TEXT(S, init,        "base", "base|random", "random: the base's network with new weights")    \
    TEXT(S, frozen,      "", "",               "comma list: parameters whose names start so rest")\
    REAL(S, l1_weight,   1, 0, 1e6, "",        "of the mean absolute error, films in [0, 1]")     \
    REAL(S, mse_weight,  1, 0, 1e6, "",        "of the mean square error")                        \
    REAL(S, kl_weight,   1e-6, 0, 1e6, "",     "KL: of the divergence, summed over a film's "     \
         "latent")                                                                                \
    REAL(S, perceptual_weight, 0, 0, 1e6, "",  "of the distance of features; 0 = off")             \
    PATH(S, perceptual_weights, "",            "Inception-V3 (a file, torchvision's names) whose " \
         "features those are")                                                                    \
    INT (S, steps,       2000, 1, 100000000, "", "length of the run")                             \
    INT (S, batch,       8, 1, 4096, "films",  "per micro-batch: one pass")                       \
    INT (S, accumulate,  1, 1, 4096, "",       "micro-batches per step, over all ranks")          \
    REAL(S, learning_rate, 1e-5, 0, 1, "",     "after warm-up")                                   \
    INT (S, warmup,      0, 0, 100000000, "steps", "over which the rate rises from 0")            \
    TEXT(S, schedule,    "constant", "constant|cosine|linear", "of the learning rate")            \
    REAL(S, weight_decay, 0, 0, 1, "",         "adamw: pull of the weights to zero")              \
    REAL(S, beta1,       .9, 0, .999999, "",   "adamw: memory of the mean")                       \
    REAL(S, beta2,       .999, 0, .999999, "", "adamw: memory of the square")                     \
    REAL(S, epsilon,     1e-8, 1e-16, 1, "",   "adamw: added to the root of the square")          \
    REAL(S, clip_norm,   1, 0, 1e6, "",        "limit of the gradient's norm; 0 = off")           \
    REAL(S, ema_decay,   .999, 0, .9999999, "", "of the averaged weights, which are the result; "  \
         "0 = off")                                                                               \
    INT (S, recompute,   0, 0, 1, "0/1",       "KL: less memory, more time")                      \
    INT (S, validate_every, 200, 1, 100000000, "steps", "between validation losses")              \
    INT (S, checkpoint_every, 500, 1, 100000000, "steps", "between checkpoints")

#define SYNTHESIS_SETTINGS(S, INT, REAL, TEXT, PATH)                                              \
    TEXT(S, mode,     "image-to-image", "image-to-image|text-to-image", "what it starts from")    \
    TEXT(S, source,   "normal", "normal|disease", "class of the source films")                    \
    INT (S, count,    0, 0, 100000000, "films", "per disease; 0 = as many as balance the classes")\
    REAL(S, strength, .6, 0, 1, "",            "image-to-image: 0 keeps the source, 1 ignores it")\
    REAL(S, guidance, 4, 1, 100, "",           "weight of the prompt; 1 = none beyond the model's")\
    INT (S, steps,    25, 1, 1000, "",         "of the sampler from pure noise")                  \
    REAL(S, eta,      0, 0, 1, "",             "fresh noise per step; 0 = DDIM, 1 = DDPM")        \
    TEXT(S, spacing,  "leading", "leading|trailing|linspace", "of the sampler's steps")           \
    INT (S, batch,    16, 1, 4096, "films",    "at once; changes no film")                        \
    TEXT(S, weights,  "ema", "ema|raw",        "averaged or last")                                \
    TEXT(S, prompt_normal, "chest x-ray, normal lungs", "|", "templates, parted by |")            \
    TEXT(S, prompt_a, "chest x-ray, bacterial pneumonia", "|", "of disease_a: as above")          \
    TEXT(S, prompt_b, "chest x-ray, viral pneumonia", "|", "of disease_b: as above")              \
    TEXT(S, negative_prompt, "", "",           "what guidance leads away from")

#define PARALLEL_SETTINGS(S, INT, REAL, TEXT, PATH)                                               \
    TEXT(S, reduction, "fixed", "fixed|fast",  "of gradients over ranks; fixed: the same bits "   \
         "for any number of ranks; fast: as the library likes")                                   \
    INT (S, zero,      0, 0, 1, "0/1",         "a rank keeps its part of the optimizer's state "  \
         "and averaged weights only: less memory, the same bits")                                 \
    INT (S, sync_batchnorm, 0, 0, 1, "0/1",    "classifier: statistics of the batch over the "    \
         "films of all ranks")                                                                    \
    INT (S, bucket_mb, 25, 1, 4096, "MiB",     "of gradients are reduced together, while others " \
         "are still computed")                                                                    \
    INT (S, timeout_s, 300, 10, 86400, "s",    "that a rank waits for another")

#define EVALUATE_SETTINGS(S, INT, REAL, TEXT, PATH)                                               \
    INT (S, replicates,   10000, 100, 10000000, "", "of the bootstrap")                           \
    INT (S, permutations, 10000, 100, 10000000, "", "of the permutation tests")

/* section (and field of Config), struct, table, meaning */
#define CONFIG_SECTIONS(X)                                                                        \
    X(study,      StudySettings,      STUDY_SETTINGS,      "the run as a whole")                  \
    X(data,       DataSettings,       DATA_SETTINGS,       "films, classes and split")            \
    X(classifier, ClassifierSettings, CLASSIFIER_SETTINGS, "Inception-V3")                        \
    X(augment,    AugmentSettings,    AUGMENT_SETTINGS,    "random changes of training films")    \
    X(ldm,        LdmSettings,        LDM_SETTINGS,        "fine-tuning of the diffusion model")  \
    X(autoencoder, AutoencoderSettings, AUTOENCODER_SETTINGS, "fine-tuning of the autoencoder")   \
    X(synthesis,  SynthesisSettings,  SYNTHESIS_SETTINGS,  "synthetic films")                     \
    X(parallel,   ParallelSettings,   PARALLEL_SETTINGS,   "training over several ranks")         \
    X(evaluate,   EvaluateSettings,   EVALUATE_SETTINGS,   "statistics")
/* clang-format on */
#endif
