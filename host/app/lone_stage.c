/* lone_stage.c - one stage in a folder of its own; see lone_stage.h. */
#include "app/lone_stage.h"
#include "app/ranks.h"
#include "study/board.h"
#include "study/dataset.h"
#include "study/lock.h"
#include "study/run_folder.h"
#include <stdlib.h>
#include <string.h>

Status train_call(TrainCall *call, const Usage *usage, int argc, char **argv)
{
    Options o;
    TRY(options_parse(&o, usage, argc, argv));
    call->helped = o.helped;
    if (o.helped) return OK;
    TRY(options_config(&call->config, &o));
    TRY(options_need(&call->out, &o, "out"));
    TRY(options_int(&call->minutes, &o, "minutes", 0, 1 << 20));
    call->label = options_text(&o, "class");
    for (int i = 0; i < usage->n_option && call->label; i++) {
        const Option *class = &usage->option[i];
        if (!strcmp(class->name, "class") && class->preset && !strcmp(call->label, class->preset))
            call->label = NULL;
    }
    return OK;
}

Status lone_stage_films(LoneStage *l)
{
    char *folder = path_join(l->out, "prepare");
    bool first = comm_rank(l->comm) == 0;
    Board *board;
    stage_new(&l->data, "prepare", folder);
    free(folder);
    TRY(board_open(&board, l->out, l->comm)); /* those who wait are in no call of comm */
    Status s = first ? dataset_stage(&l->data, l->config, l->log) : stage_wait(&l->data);
    if (s) s = board_stop(board, s);
    s = comm_agree(l->comm, "the films", s);
    board_close(board, true);
    TRY(s);
    TRY(dataset_manifest(&l->manifest, &l->data));
    stage_upstream(&l->stage, &l->data, NULL);
    return OK;
}

static Status work(LoneStage *l, const LoneKind *kind)
{
    int n = 0;
    TRY(comm_agree(l->comm, kind->name, kind->choose(l)));
    TRY(stage_begin(&l->stage));
    if (l->stage.done) {
        log_info(l->log, "%s: was complete", l->out);
    } else {
        stage_identity(&l->stage, l->identity);
        TRY(kind->work(l));
        while (kind->output[n]) n++;
        TRY(stage_end(&l->stage, kind->output, n));
    }
    if (!comm_rank(l->comm)) printf("%s/%s\n", l->out, kind->result);
    return OK;
}

Status lone_stage_run(LoneStage *l, const LoneKind *kind)
{
    Ranks ranks = {0};
    RunLock lock = {0};
    Status s;
    stage_new(&l->stage, kind->name, l->out);
    TRY_OR(done, s, ranks_open(&ranks, l->config, l->log));
    l->device = ranks.device;
    l->comm = l->stage.comm = ranks.comm;
    s = ranks_first(&ranks) ? lone_run_open(&lock, l->out, l->log) : OK;
    TRY_OR(done, s, comm_agree(ranks.comm, l->out, s));
    TRY_OR(done, s, run_folder_autotune(l->out, NULL, l->config, l->device, l->comm, l->log));
    s = work(l, kind);
done:
    stage_free(&l->stage);
    stage_free(&l->data);
    manifest_free(&l->manifest);
    arena_free(&l->arena);
    s = ranks_close(&ranks, s);
    run_unlock(&lock);
    return s;
}
