/* commands.h - the commands of the program. To add one: its row here and its file cmd_<name>.c. */
#ifndef COMMANDS_H
#define COMMANDS_H
#include "base/log.h"

/* What every command gets. */
typedef struct {
    Log *log; /* stderr; log_file() adds log.jsonl once the command has a run folder */
} App;

/*    name, function, help in one line */
#define COMMANDS(X)                                                                                \
    X("study", cmd_study, "the whole study in one run folder")                                     \
    X("prepare", cmd_prepare, "check, split and convert films for a study")                        \
    X("train-ldm", cmd_train_ldm, "fine-tune one diffusion model")                                 \
    X("train-autoencoder", cmd_train_autoencoder, "fine-tune an autoencoder")                      \
    X("train-classifier", cmd_train_classifier, "train one classifier")                            \
    X("synthesize", cmd_synthesize, "make synthetic films of one class")                           \
    X("img2img", cmd_img2img, "make one film from a film and a prompt")                            \
    X("txt2img", cmd_txt2img, "make one film from a prompt")                                       \
    X("evaluate", cmd_evaluate, "metrics of a classifier with intervals, or two compared")         \
    X("report", cmd_report, "make the report of a finished run again, or its films as a picture")  \
    X("forward", cmd_forward, "run one model on given tensors, and its backward pass")             \
    X("weights", cmd_weights, "list, convert or join weight files, merge LoRA")                    \
    X("bench", cmd_bench, "time training steps, films or single ops on this machine")              \
    X("devices", cmd_devices, "list the processors and accelerators that it can use")

/* argv[0] is the command's name. */
#define COMMAND_PROTOTYPE(name, run, help) Status run(App *app, int argc, char **argv);
COMMANDS(COMMAND_PROTOTYPE)
#undef COMMAND_PROTOTYPE

/* argv of main(): runs the command that argv[1] names, or answers --help and --version. */
Status commands_run(App *app, int argc, char **argv);
#endif
