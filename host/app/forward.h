/* forward.h - one run of equipoise forward, and the models that it knows. */
#ifndef FORWARD_H
#define FORWARD_H
#include "exec/exec.h"
#include "models/params.h"
#include "weights/model_folder.h"

typedef enum {
    PORT_IMAGE,
    PORT_ROWS,
    PORT_TIME,
    PORT_IDS
} PortKind; /* the last two have no gradient */
typedef struct {
    const char *name;
    PortKind kind;
    int ndim;
} ForwardPort;

enum { MAX_PORTS = 3 };

typedef struct Forward Forward;
typedef struct {
    const char *name;
    ForwardPort in[MAX_PORTS], out[MAX_PORTS];
    Status (*build)(Forward *f); /* reads the config, records the model, fills f->output */
    Status (*names)(Forward *f); /* fills f->how: names in the file; NULL: as published */
    bool has_training;           /* computes something else with --train */
} ForwardModel;

struct Forward {
    const ForwardModel *model;
    const char *weights, *from, *to;
    bool grad, train;
    char *config_file, *weights_file; /* owned; config_file NULL: a single file of weights */
    Device *device;
    Graph *graph;
    Exec *exec;
    ParamStore params;
    ParamFile how;
    SafeFile file; /* the inputs */
    Arena names;
    Tensor *input[MAX_PORTS], *output[MAX_PORTS], *dy[MAX_PORTS];
    int vocab;    /* text: ids are below */
    int n_output; /* outputs of this run, the first ones of the model's */
};

/* ERR_USAGE, with all names, where there is none of this name. */
Status forward_find_model(const ForwardModel **m, const char *name);
#endif
