/* run_folder.c - see run_folder.h. */
#include "study/run_folder.h"
#include "exec/choices.h"
#include "study/stage.h"
#include <stdlib.h>
#include <string.h>

Status run_folder_count(int *n, const char *run)
{
    DirList list = {0};
    *n = 0;
    if (!file_exists(run)) return OK;
    if (!dir_exists(run)) return FAIL(ERR_INPUT, "%s: is a file, expected a run folder", run);
    TRY(dir_list(&list, run));
    for (int i = 0; i < list.n; i++) {
        const char *name = list.name[i];
        bool log = !strncmp(name, "log", 3) && strstr(name, ".jsonl");
        *n += strcmp(name, "lock") && !log && !file_is_temp(name);
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

Status run_folder_open(bool *there, const Config *config, const char *run)
{
    int n;
    char *ini = path_join(run, "config.ini");
    Status s;
    TRY_OR(done, s, run_folder_count(&n, run));
    *there = file_exists(ini);
    if (n && !*there)
        s = FAIL(ERR_USAGE, "%s: holds other files and no config.ini, expected the folder of a run",
                 run);
    else s = *there ? check_config(config, ini) : write_config(config, ini);
done:
    free(ini);
    return s;
}

void run_folder_log(const char *folder, const char *name, Log *log)
{
    char *path = path_join(folder, name);
    log_file(log, path);
    free(path);
}

Status run_folder_autotune(const char *folder, const char *stage, const Config *c, Device *d,
                           const Comm *ranks, Log *log)
{
    const char *how = c->study.autotune;
    Text name = {0};
    text_add(&name, "kernels");
    if (stage) text_add(&name, "-%s", stage);
    if (comm_rank(ranks)) text_add(&name, "-%d", comm_rank(ranks));
    text_add(&name, ".json");
    Status s = device_autotune(d, comm_size(ranks) > 1 && !strcmp(how, "on") ? "read" : how, folder,
                               name.s, log);
    free(name.s);
    return s;
}
