/* lone_stage.c - one stage in a folder of its own; see lone_stage.h. */
#include "app/lone_stage.h"
#include "study/dataset.h"
#include "study/lock.h"
#include <stdlib.h>

Status lone_stage_films(LoneStage *l)
{
    char *folder = path_join(l->out, "prepare");
    stage_new(&l->data, "prepare", folder);
    free(folder);
    TRY(dataset_stage(&l->data, l->config, l->log));
    TRY(dataset_manifest(&l->manifest, &l->data));
    stage_upstream(&l->stage, &l->data, NULL);
    return OK;
}

static Status work(LoneStage *l, const LoneKind *kind)
{
    int n = 0;
    TRY(kind->choose(l));
    TRY(stage_begin(&l->stage));
    if (l->stage.done) {
        log_info(l->log, "%s: was complete", l->out);
    } else {
        stage_identity(&l->stage, l->identity);
        TRY(kind->work(l));
        while (kind->output[n]) n++;
        TRY(stage_end(&l->stage, kind->output, n));
    }
    printf("%s/%s\n", l->out, kind->result);
    return OK;
}

Status lone_stage_run(LoneStage *l, const LoneKind *kind)
{
    const StudySettings *study = &l->config->study;
    RunLock lock = {0};
    Status s;
    stage_new(&l->stage, kind->name, l->out);
    TRY_OR(done, s,
           device_open(&l->device, study->device, study->precision, study->threads, l->log));
    TRY_OR(done, s, lone_run_open(&lock, l->out, l->log));
    TRY_OR(done, s, work(l, kind));
done:
    device_close(l->device);
    stage_free(&l->stage);
    stage_free(&l->data);
    manifest_free(&l->manifest);
    arena_free(&l->arena);
    run_unlock(&lock);
    return s;
}
