/* lock.c - flock() on DIR/lock; see lock.h. */
#include "study/lock.h"
#include "base/file.h"
#include "base/text.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOCK_TEXT = 512, LOOKS_A_SECOND = 20 };

/* "process 123 on host h, boot <id>" */
static void own_text(char text[LOCK_TEXT])
{
    char host[256] = "unknown", boot[64] = "unknown";
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    gethostname(host, sizeof host - 1);
    if (f) {
        if (fgets(boot, sizeof boot, f)) boot[strcspn(boot, "\n")] = 0;
        fclose(f);
    }
    snprintf(text, LOCK_TEXT, "process %ld on host %s, boot %s", (long)getpid(), host, boot);
}

/* Opens and locks the file that the path leads to now: a holder that ends removes it, so what was
 * opened before may be another one. */
static Status take(int *fd, const char *path, int wait_s)
{
    for (int looks = 0;; looks++) {
        struct stat opened, there;
        int f = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (f < 0)
            return FAIL(errno == ENOSPC ? ERR_SPACE : ERR_INPUT, "%s: %s", path, strerror(errno));
        if (flock(f, LOCK_EX | LOCK_NB)) {
            char holder[LOCK_TEXT] = "";
            int why = errno;
            ssize_t n = pread(f, holder, sizeof holder - 1, 0);
            close(f);
            if (why == EWOULDBLOCK && looks < wait_s * LOOKS_A_SECOND) {
                usleep(1000000 / LOOKS_A_SECOND);
                continue;
            }
            if (why != EWOULDBLOCK)
                return FAIL(ERR_INPUT, "%s: cannot be locked: %s", path, strerror(why));
            return FAIL(ERR_USAGE,
                        "%s: held by %s, expected a run folder that no other process works in",
                        path, n > 0 ? holder : "another process");
        }
        if (!fstat(f, &opened) && !stat(path, &there) && opened.st_ino == there.st_ino &&
            opened.st_dev == there.st_dev) {
            *fd = f;
            return OK;
        }
        close(f);
    }
}

Status run_lock(RunLock *l, const char *dir, int wait_s, Log *log)
{
    char mine[LOCK_TEXT], left[LOCK_TEXT] = "";
    TRY(dir_make(dir));
    char *path = path_join(dir, "lock");
    int fd = -1;
    Status s = take(&fd, path, wait_s);
    if (s) {
        free(path);
        return s;
    }
    *l = (RunLock){fd, path};
    if (pread(fd, left, sizeof left - 1, 0) > 0)
        log_info(log, "%s: left by %s, which is gone; taken over", path, left);
    own_text(mine);
    size_t n = strlen(mine);
    if (ftruncate(fd, 0) || pwrite(fd, mine, n, 0) != (ssize_t)n) {
        s = FAIL(errno == ENOSPC ? ERR_SPACE : ERR_INPUT, "%s: %s", path, strerror(errno));
        run_unlock(l);
    }
    return s;
}

void run_unlock(RunLock *l)
{
    if (!l->path) return;
    unlink(l->path);
    close(l->fd);
    free(l->path);
    *l = (RunLock){0};
}

Status lone_run_open(RunLock *l, const char *dir, Log *log)
{
    DirList list = {0};
    Text path = {0};
    if (dir_exists(dir)) {
        bool ours = false;
        TRY(dir_list(&list, dir));
        for (int i = 0; i < list.n; i++)
            ours |= !strcmp(list.name[i], "lock") || !strcmp(list.name[i], "stage.json") ||
                    !strcmp(list.name[i], "log.jsonl");
        int n = list.n;
        dir_list_free(&list);
        if (n && !ours)
            return FAIL(
                ERR_USAGE,
                "%s: is there and holds other files, expected a new folder or one to continue",
                dir);
    }
    TRY(run_lock(l, dir, 0, log));
    file_sweep_temps(dir);
    text_add(&path, "%s/log.jsonl", dir);
    log_file(log, path.s);
    free(path.s);
    return OK;
}
