/* study.c - the order of the stages and the care of the run folder; see study.h. */
#include "study/study.h"
#include "base/csv.h"
#include "base/signal.h"
#include "report/report.h"
#include "study/dataset.h"
#include "study/evaluate.h"
#include "study/lock.h"
#include "study/space.h"
#include <stdlib.h>
#include <string.h>

/* ---- the run folder ------------------------------------------------------------------- */

/* What is in it but for leftovers of a start that was killed before config.ini was written. */
static Status count_entries(int *n, const char *run)
{
    DirList list = {0};
    *n = 0;
    if (!file_exists(run)) return OK;
    TRY(dir_list(&list, run));
    for (int i = 0; i < list.n; i++) {
        const char *name = list.name[i];
        *n += strcmp(name, "lock") && strcmp(name, "log.jsonl") && !strstr(name, ".tmp-");
    }
    dir_list_free(&list);
    return OK;
}

static Status write_config(const Config *config, const char *path)
{
    OutFile o = {0};
    TRY(out_open(&o, path));
    Status s = config_write(config, &o);
    if (!s) s = out_commit(&o);
    out_abandon(&o);
    return s;
}

static Status check_config(const Config *config, const char *path)
{
    Config was;
    Text changed = {0};
    config_default(&was);
    TRY(config_read(&was, path));
    if (!settings_difference(&changed, config, &was)) return OK;
    Status s =
        FAIL(ERR_USAGE,
             "%s: the run was started with other settings: %s; expected the same, or another --run "
             "folder",
             path, changed.s);
    free(changed.s);
    return s;
}

/* Under the lock: the folder is ours and its config.ini agrees. */
static Status open_run(const Config *config, const char *run, Log *log)
{
    int n;
    char *ini = path_join(run, "config.ini"), *records = path_join(run, "log.jsonl");
    Status s;
    TRY_OR(done, s, count_entries(&n, run));
    bool there = file_exists(ini);
    if (n && !there) {
        s = FAIL(ERR_USAGE, "%s: holds other files and no config.ini, expected the folder of a run",
                 run);
        goto done;
    }
    file_sweep_temps(run);
    TRY_OR(done, s, there ? check_config(config, ini) : write_config(config, ini));
    log_file(log, records);
    log_info(log, "%s %s", there ? "continuing" : "starting", run);
done:
    free(ini);
    free(records);
    return s;
}

/* ---- synthetic/manifest.csv ------------------------------------------------------------ */

static Status append_manifest(OutFile *o, const Task *t, bool header)
{
    Csv c = {0};
    char *table = path_join(t->synthetic, "manifest.csv");
    const char *folder = strrchr(t->synthetic, '/') + 1;
    int path;
    Status s;
    TRY_OR(done, s, csv_read(&c, table));
    TRY_OR(done, s, csv_need(&path, &c, "path"));
    for (int col = 0; col < c.n_col && header; col++)
        TRY_OR(done, s, csv_write_field(o, c.name[col], col == c.n_col - 1));
    for (int row = 0; row < c.n_row; row++)
        for (int col = 0; col < c.n_col; col++) {
            char *below = path_join(folder, csv_at(&c, row, col));
            s = csv_write_field(o, col == path ? below : csv_at(&c, row, col), col == c.n_col - 1);
            free(below);
            TRY_OR(done, s, s);
        }
done:
    csv_free(&c);
    free(table);
    return s;
}

/* The films of both tasks in one table, with paths from its folder. */
static Status merge_manifests(const Study *s, const Task task[2])
{
    OutFile o = {0};
    char *path = path_join(s->run, "synthetic/manifest.csv");
    Status status;
    TRY_OR(done, status, out_open(&o, path));
    for (int i = 0; i < 2; i++) TRY_OR(done, status, append_manifest(&o, &task[i], i == 0));
    TRY_OR(done, status, out_commit(&o));
done:
    out_abandon(&o);
    free(path);
    return status;
}

/* ---- the stages ----------------------------------------------------------------------- */

static const struct {
    const char *title;
    Status (*run)(Task *t, const Study *s);
} step[] = {
    {"baseline classifier", task_baseline},
    {"diffusion model", task_ldm},
    {"synthetic films", task_synth},
    {"augmented classifier", task_augmented},
};
enum { N_STEP = sizeof step / sizeof *step, N_STAGE = 2 * N_STEP + 2 };

static Status run_tasks(const Study *s, Task task[2])
{
    for (int i = 0; i < 2 * N_STEP; i++) {
        Task *t = &task[i % 2];
        TRY(signal_check());
        log_info(s->log, "stage %d of %d: %s, %s", i + 2, N_STAGE, step[i / 2].title, t->disease);
        TRY(step[i / 2].run(t, s));
    }
    return OK;
}

static Status run_stages(Study *s)
{
    Task task[2] = {0};
    Stage evaluate = {0};
    char *folder = path_join(s->run, "stages/prepare");
    Status status;
    log_info(s->log, "stage 1 of %d: prepare", N_STAGE);
    TRY_OR(done, status, dataset_stage(&s->prepare, &s->manifest, s->config, folder, s->log));
    for (int i = 0; i < 2; i++) TRY_OR(done, status, task_open(&task[i], s, i ? 'b' : 'a'));
    TRY_OR(done, status, run_tasks(s, task));
    TRY_OR(done, status, merge_manifests(s, task));
    TRY_OR(done, status, signal_check());
    log_info(s->log, "stage %d of %d: evaluation", N_STAGE, N_STAGE);
    TRY_OR(done, status, evaluate_stage(&evaluate, s, task));
    TRY_OR(done, status, study_report(s->run, s->log));
    TRY_OR(done, status, table_print(s->run));
done:
    stage_free(&evaluate);
    for (int i = 0; i < 2; i++) task_close(&task[i]);
    free(folder);
    return status;
}

/* ---- the door ------------------------------------------------------------------------- */

Status study_report(const char *run, Log *log)
{
    char *metrics = path_join(run, "metrics.json");
    Status s = file_exists(metrics)
                   ? report_write(run, log)
                   : FAIL(ERR_INPUT, "%s: is not there, expected a finished run", metrics);
    free(metrics);
    return s;
}

/* What would be found hours later, or after a folder was made. */
static Status check_first(const Config *c, const char *run, bool starts)
{
    const DataSettings *d = &c->data;
    if (!*c->ldm.base) return FAIL(ERR_USAGE, "ldm.base is empty, expected a model folder");
    TRY(ldm_check(c->ldm.base, d->size, strcmp(c->ldm.init, "random")));
    TRY(classifier_check(c));
    int n[4];
    TRY(dataset_check(n, c, (const char *[]){d->normal, d->disease_a, d->disease_b}, 3));
    return starts ? space_for_study(run, c, &(FilmCounts){n[3], n[0], {n[1], n[2]}}) : OK;
}

Status study_run(const Config *config, const char *run, bool resume, Log *log)
{
    RunLock lock = {0};
    Study s = {.config = config, .run = run, .log = log};
    int n;
    Status status;
    TRY(count_entries(&n, run));
    if (n && !resume) /* before anything is written into it */
        return FAIL(
            ERR_USAGE,
            "%s: is there and not empty, expected a new folder, or --resume to continue a run",
            run);
    TRY(check_first(config, run, !n));
    TRY_OR(done, status, device_open(&s.device, config->study.device, config->study.precision,
                                     config->study.threads, log));
    TRY_OR(done, status, run_lock(&lock, run, log));
    TRY_OR(done, status, open_run(config, run, log));
    log_info(log, "on %s", device_text(s.device));
    TRY_OR(done, status, run_stages(&s));
    log_info(log, "done: %s/report.html", run);
done:
    device_close(s.device);
    stage_free(&s.prepare);
    manifest_free(&s.manifest);
    run_unlock(&lock);
    if (status != ERR_STOPPED) return status;
    char why[1024];
    snprintf(why, sizeof why, "%s", status_message());
    return FAIL(ERR_STOPPED, "%s; run again with --resume to continue", why);
}
