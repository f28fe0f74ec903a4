/* study.c - the doors: a whole study, one of its stages, its plan; see study.h. */
#include "study/study.h"
#include "exec/speed.h"
#include "report/report.h"
#include "study/conduct.h"
#include "study/dataset.h"
#include "study/evaluate.h"
#include "study/lock.h"
#include "study/plan.h"
#include "study/run_folder.h"
#include "study/space.h"
#include <stdlib.h>
#include <string.h>

enum { OPENING_S = 30 }; /* that another process may take to open the run folder */

Status study_report(const char *run, Log *log)
{
    char *metrics = path_join(run, "metrics.json");
    Status s = file_exists(metrics)
                   ? report_write(run, log)
                   : FAIL(ERR_INPUT, "%s: is not there, expected a finished run", metrics);
    free(metrics);
    return s;
}

/* ---- before the start --------------------------------------------------------------------- */

static Status count_films(FilmCounts *films, const Config *c)
{
    const DataSettings *d = &c->data;
    int n[4];
    TRY(dataset_check(n, c, (const char *[]){d->normal, d->disease_a, d->disease_b}, 3));
    *films = (FilmCounts){n[3], n[0], {n[1], n[2]}};
    return OK;
}

/* What would be found hours later, or after a folder was made. */
static Status check_first(FilmCounts *films, const Config *c, const char *run, bool starts)
{
    if (!*c->ldm.base) return FAIL(ERR_USAGE, "ldm.base is empty, expected a model folder");
    bool random = !strcmp(c->ldm.init, "random");
    TRY(ldm_check(c->ldm.base, c->data.size, random ? LDM_AUTOENCODER : LDM_ALL_WEIGHTS));
    TRY(classifier_check(c));
    TRY(count_films(films, c));
    return starts ? space_for_study(run, c, films) : OK;
}

/* No other process runs a stage alone: none can start one while the folder is ours. */
static Status check_stages_free(const char *run, Log *log)
{
    for (int i = 0; i < N_STEP; i++) {
        RunLock lock = {0};
        char *folder = step_folder(run, i), *file = path_join(folder, "lock");
        Status s = file_exists(file) ? run_lock(&lock, folder, 0, log) : OK;
        run_unlock(&lock);
        free(file);
        free(folder);
        TRY(s);
    }
    return OK;
}

static Status take_folder(RunLock *lock, FilmCounts *films, const StudyJob *job)
{
    int n;
    bool there;
    TRY(run_folder_count(&n, job->run));
    if (n && !job->resume) /* before anything is written into it */
        return FAIL(
            ERR_USAGE,
            "%s: is there and not empty, expected a new folder, or --resume to continue a run",
            job->run);
    TRY(check_first(films, job->config, job->run, !n));
    TRY(run_lock(lock, job->run, 0, job->log));
    TRY(check_stages_free(job->run, job->log));
    file_sweep_temps(job->run);
    TRY(run_folder_open(&there, job->config, job->run));
    run_folder_log(job->run, "log.jsonl", job->log);
    log_info(job->log, "%s %s", there ? "continuing" : "starting", job->run);
    log_info(job->log, "on %s", device_text(job->device));
    return OK;
}

/* ---- the plan ----------------------------------------------------------------------------- */

static Status set_speed(StudyPlan *p, double given, Device *d)
{
    p->flops_per_s = given;
    p->measured = given <= 0;
    return p->measured ? device_speed(&p->flops_per_s, d) : OK;
}

/* Rank 0's plan, on all. */
static Status share_plan(Slot *slot, const StudyJob *job, Study *s, const FilmCounts *films)
{
    StudyPlan p = {0};
    bool done[N_STEP] = {false}, first = comm_rank(job->world) == 0;
    Status status = OK;
    for (int i = 0; i < N_STEP && first && !status; i++) {
        Stage *stage = step_stage(s, i);
        if (!stage) continue;
        status = stage_read(stage, false);
        done[i] = stage->done;
        stage->done = false; /* to be seen by those whose turn it is */
    }
    if (first && !status)
        status = study_plan_make(&p, job->config, films, device_act(job->device),
                                 comm_size(job->world), done);
    if (first && !status) status = set_speed(&p, job->flops_per_s, job->device);
    TRY(comm_agree(job->world, "the plan", status));
    if (first) study_plan_log(&p, job->config, job->log);
    memcpy(slot, p.slot, sizeof p.slot);
    return comm_host_broadcast(job->world, "the plan", slot, sizeof p.slot, 0);
}

Status study_show_plan(const Config *c, int ranks, double flops_per_s, double link, Dtype act,
                       Device *device)
{
    FilmCounts films;
    StudyPlan p;
    if (!*c->ldm.base) return FAIL(ERR_USAGE, "ldm.base is empty, expected a model folder");
    TRY(ldm_check(c->ldm.base, c->data.size, LDM_NO_WEIGHTS));
    TRY(count_films(&films, c));
    TRY(study_plan_make(&p, c, &films, act, ranks, NULL));
    TRY(set_speed(&p, flops_per_s, device));
    p.link = link;
    p.sharded = c->parallel.zero;
    study_plan_print(stdout, &p, c);
    return OK;
}

/* ---- the run ------------------------------------------------------------------------------ */

/* The first ranks of groups keep logs of their own. */
static void open_log(const StudyJob *job, const Slot *slot)
{
    int rank = comm_rank(job->world);
    bool speaks = false;
    for (int i = 0; i < N_STEP; i++) speaks |= slot[i].first == rank;
    if (!rank || !speaks) return;
    Text name = {0};
    text_add(&name, "log-%d.jsonl", rank);
    run_folder_log(job->run, name.s, job->log);
    free(name.s);
}

static Status tune(const StudyJob *job, const char *stage)
{
    return run_folder_autotune(job->run, stage, job->config, job->device, job->world, job->log);
}

static Study new_study(const StudyJob *job)
{
    Study s = {.config = job->config, .run = job->run, .device = job->device, .log = job->log};
    study_open(&s);
    return s;
}

static Status explain_stop(Status s)
{
    char why[1024];
    if (s != ERR_STOPPED) return s;
    snprintf(why, sizeof why, "%s", status_message());
    return FAIL(ERR_STOPPED, "%s; run again with --resume to continue", why);
}

Status study_run(const StudyJob *job)
{
    RunLock lock = {0};
    FilmCounts films = {0};
    Slot slot[N_STEP];
    bool first = comm_rank(job->world) == 0;
    Study s = new_study(job);
    Status status = first ? take_folder(&lock, &films, job) : OK;
    TRY_OR(done, status, comm_agree(job->world, job->run, status));
    TRY_OR(done, status, tune(job, NULL));
    TRY_OR(done, status, share_plan(slot, job, &s, &films));
    open_log(job, slot);
    TRY_OR(done, status, conduct(&s, job->world, slot));
    if (first) status = table_print(job->run);
    if (!status) log_info(job->log, "done: %s/report.html", job->run);
done:
    study_close(&s);
    run_unlock(&lock);
    return explain_stop(status);
}

/* ---- one stage ---------------------------------------------------------------------------- */

/* Before anything is made. */
static Status check_stage(const StudyJob *job, int i)
{
    FilmCounts films;
    int n;
    Study s = new_study(job);
    Status status;
    TRY_OR(done, status, run_folder_count(&n, job->run));
    TRY_OR(done, status, check_first(&films, job->config, job->run, !n));
    status = step_need(&s, i, false);
done:
    study_close(&s);
    return status;
}

/* The run folder's lock is held only until the stage's own is. */
static Status take_stage(RunLock *lock, const StudyJob *job, int i)
{
    RunLock whole = {0};
    char *folder = step_folder(job->run, i);
    bool there;
    Status s;
    TRY_OR(done, s, check_stage(job, i));
    TRY_OR(done, s, run_lock(&whole, job->run, OPENING_S, job->log));
    TRY_OR(done, s, run_folder_open(&there, job->config, job->run));
    TRY_OR(done, s, run_lock(lock, folder, 0, job->log));
    file_sweep_temps(folder);
    run_folder_log(folder, "log.jsonl", job->log);
done:
    run_unlock(&whole);
    free(folder);
    return s;
}

Status study_run_stage(const StudyJob *job, const char *name)
{
    RunLock lock = {0};
    int i = step_find(name);
    const char *names[N_STEP];
    for (int k = 0; k < N_STEP; k++) names[k] = step[k].name;
    const char *near = i < 0 ? text_nearest(name, names, N_STEP) : NULL;
    if (i < 0)
        return FAIL(ERR_USAGE, "there is no stage %s%s%s%s; --list-stages lists them", name,
                    near ? ", did you mean " : "", near ? near : "", near ? "?" : "");
    Study s = new_study(job);
    Status status = comm_rank(job->world) ? OK : take_stage(&lock, job, i);
    TRY_OR(done, status, comm_agree(job->world, job->run, status));
    TRY_OR(done, status, tune(job, name));
    TRY_OR(done, status, conduct_one(&s, job->world, i));
    log_info(job->log, "done: stage %s", name);
done:
    study_close(&s);
    run_unlock(&lock);
    return explain_stop(status);
}

Status study_list_stages(const char *run)
{
    Study s = {.run = run};
    int n;
    TRY(run_folder_count(&n, run));
    study_open(&s);
    Status status = OK;
    for (int i = 0; i < N_STEP && !status; i++) {
        Stage *stage = step_stage(&s, i);
        const char *state = "";
        if (stage && file_exists(run)) {
            status = stage_read(stage, false);
            state = stage->done ? "complete" : file_exists(stage->record) ? "begun" : "to do";
        }
        printf("%-12s %-9s after", step[i].name, state);
        for (int k = 0; k < N_STEP; k++)
            if (step[i].needs >> k & 1) printf(" %s", step[k].name);
        printf("%s\n", step[i].needs ? "" : " nothing");
    }
    study_close(&s);
    return status;
}
