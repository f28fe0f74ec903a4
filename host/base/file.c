/* file.c - atomic writes, whole reads, directories, SHA-256. */
#include "base/file.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static Status io_class(int err)
{
    return err == ENOSPC || err == EDQUOT || err == EFBIG || err == ENOMEM ? ERR_SPACE : ERR_INPUT;
}

#define IO_FAIL(path, what)                                                                        \
    FAIL(io_class(errno), "%s: cannot %s: %s", (path), (what), strerror(errno))

static char *text(const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = malloc((size_t)n + 1);
    CHECK(s);
    vsnprintf(s, (size_t)n + 1, fmt, again);
    va_end(again);
    return s;
}

char *path_join(const char *a, const char *b)
{
    if (b[0] == '/' || !a[0]) return text("%s", b);
    return text("%s%s%s", a, a[strlen(a) - 1] == '/' ? "" : "/", b);
}

/* ---- writing -------------------------------------------------------------------------- */

static Status make_parents(const char *path)
{
    char *copy = text("%s", path);
    Status s = dir_make(dirname(copy));
    free(copy);
    return s;
}

static Status sync_parent(const char *path)
{
    char *copy = text("%s", path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY);
    free(copy);
    if (fd < 0) return IO_FAIL(path, "open its directory");
    int failed = fsync(fd);
    int err = errno;
    close(fd);
    errno = err;
    return failed && err != EINVAL ? IO_FAIL(path, "flush its directory") : OK;
}

/* Renaming over a device would end it. */
static Status check_place(const char *path)
{
    struct stat there;
    if (stat(path, &there) || S_ISREG(there.st_mode)) return OK;
    return FAIL(ERR_INPUT, "%s: found %s, expected a file or nothing there", path,
                S_ISDIR(there.st_mode) ? "a folder" : "a device, pipe or socket");
}

Status file_check_room(const char *path)
{
    TRY(check_place(path));
    char *at = text("%s", path), *folder = dirname(at);
    while (!file_exists(folder)) folder = dirname(folder);
    errno = ENOTDIR;
    bool good = dir_exists(folder) && !access(folder, W_OK | X_OK);
    Status s = good ? OK
                    : FAIL(ERR_INPUT, "%s: found %s: %s, expected a folder to write into", path,
                           folder, strerror(errno));
    free(at);
    return s;
}

Status out_open(OutFile *o, const char *path)
{
    *o = (OutFile){0};
    TRY(check_place(path));
    TRY(make_parents(path));
    char *temp = text("%s.tmp-%ld", path, (long)getpid());
    FILE *f = fopen(temp, "wb");
    if (!f) {
        Status s = IO_FAIL(temp, "create it");
        free(temp);
        return s;
    }
    *o = (OutFile){.f = f, .path = text("%s", path), .temp = temp};
    return OK;
}

Status out_write(OutFile *o, const void *data, size_t size)
{
    if (size && fwrite(data, 1, size, o->f) != size) return IO_FAIL(o->path, "write it");
    return OK;
}

Status out_printf(OutFile *o, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vfprintf(o->f, fmt, ap);
    va_end(ap);
    return n < 0 ? IO_FAIL(o->path, "write it") : OK;
}

void out_abandon(OutFile *o)
{
    if (o->f) fclose(o->f);
    if (o->temp) unlink(o->temp);
    free(o->temp);
    free(o->path);
    *o = (OutFile){0};
}

static Status commit(OutFile *o, bool sync)
{
    Status s = OK;
    if (fflush(o->f) || ferror(o->f) || (sync && fsync(fileno(o->f)))) {
        s = IO_FAIL(o->path, "write it");
        goto done;
    }
    int failed = fclose(o->f);
    o->f = NULL;
    if (failed || rename(o->temp, o->path)) {
        s = IO_FAIL(o->path, "write it");
        goto done;
    }
    free(o->temp);
    o->temp = NULL;
    if (sync) s = sync_parent(o->path);
done:
    out_abandon(o);
    return s;
}

Status out_commit(OutFile *o) { return commit(o, true); }

static Status write_whole(const char *path, const void *data, size_t size, bool sync)
{
    OutFile o;
    TRY(out_open(&o, path));
    Status s = out_write(&o, data, size);
    if (s) {
        out_abandon(&o);
        return s;
    }
    return commit(&o, sync);
}

Status file_write(const char *path, const void *data, size_t size)
{
    return write_whole(path, data, size, true);
}

Status file_write_unsynced(const char *path, const void *data, size_t size)
{
    return write_whole(path, data, size, false);
}

Status dir_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return IO_FAIL(path, "open it");
    int failed = syncfs(fd), err = errno;
    close(fd);
    errno = err;
    return failed ? IO_FAIL(path, "flush it") : OK;
}

/* ---- reading -------------------------------------------------------------------------- */

static Status open_regular(FILE **f, uint64_t *size, const char *path)
{
    struct stat st;
    if (stat(path, &st)) return IO_FAIL(path, "open it");
    if (!S_ISREG(st.st_mode))
        return FAIL(ERR_INPUT, "%s: is %s, expected a regular file", path,
                    S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
    if (!(*f = fopen(path, "rb"))) return IO_FAIL(path, "open it");
    *size = (uint64_t)st.st_size;
    return OK;
}

Status file_read(char **data, size_t *size, const char *path, size_t limit_bytes)
{
    FILE *f;
    uint64_t n = 0;
    *data = NULL;
    *size = 0;
    TRY(open_regular(&f, &n, path));
    Status s = OK;
    if (n > limit_bytes) {
        s = FAIL(ERR_INPUT, "%s: has %llu bytes, expected at most %zu", path, (unsigned long long)n,
                 limit_bytes);
    } else if (!(*data = malloc(n + 1))) {
        s = FAIL(ERR_SPACE, "%s: no memory for its %llu bytes", path, (unsigned long long)n);
    } else if (fread(*data, 1, n, f) != n) {
        s = FAIL(ERR_INPUT, "%s: cannot read its %llu bytes", path, (unsigned long long)n);
        free(*data);
        *data = NULL;
    } else {
        (*data)[n] = 0;
        *size = n;
    }
    fclose(f);
    return s;
}

Status file_copy(const char *from, const char *to)
{
    FILE *f;
    OutFile o;
    uint64_t n;
    char piece[1 << 16];
    TRY(open_regular(&f, &n, from));
    Status s = out_open(&o, to);
    for (size_t got; !s && (got = fread(piece, 1, sizeof piece, f));) s = out_write(&o, piece, got);
    if (!s && ferror(f)) s = FAIL(ERR_INPUT, "%s: cannot read its %llu bytes", from,
                                  (unsigned long long)n);
    fclose(f);
    if (!s) return out_commit(&o);
    out_abandon(&o);
    return s;
}

Status file_size(uint64_t *size_bytes, const char *path)
{
    struct stat st;
    if (stat(path, &st)) return IO_FAIL(path, "open it");
    *size_bytes = (uint64_t)st.st_size;
    return OK;
}

bool file_exists(const char *path) { return access(path, F_OK) == 0; }

bool file_same(const char *a, const char *b)
{
    struct stat of_a, of_b;
    return !stat(a, &of_a) && !stat(b, &of_b) && of_a.st_dev == of_b.st_dev &&
           of_a.st_ino == of_b.st_ino;
}

bool file_same_place(const char *a, const char *b)
{
    if (!strcmp(a, b)) return true; /* their folder may not be there yet either */
    if (file_exists(a) && file_exists(b)) return file_same(a, b);
    char *in_a = text("%s", a), *in_b = text("%s", b), *of_a = text("%s", a), *of_b = text("%s", b);
    bool same =
        !strcmp(basename(of_a), basename(of_b)) && file_same(dirname(in_a), dirname(in_b));
    free(in_a);
    free(in_b);
    free(of_a);
    free(of_b);
    return same;
}

bool dir_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* ---- directories ---------------------------------------------------------------------- */

Status disk_free(uint64_t *free_bytes, const char *path)
{
    struct statvfs disk;
    char *there = text("%s", path);
    while (!file_exists(there) && strcmp(there, ".") && strcmp(there, "/")) {
        char *up = text("%s", dirname(there));
        free(there);
        there = up;
    }
    Status s = statvfs(there, &disk) ? IO_FAIL(there, "ask for free space") : OK;
    if (!s) *free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    free(there);
    return s;
}

Status dir_make(const char *path)
{
    char *copy = text("%s", path);
    Status s = OK;
    for (char *c = copy + 1; !s; c++) {
        bool end = !*c;
        if (*c != '/' && !end) continue;
        *c = 0;
        if (mkdir(copy, 0777) && errno != EEXIST) s = IO_FAIL(path, "make the directory");
        if (end) break;
        *c = '/';
    }
    free(copy);
    if (!s && !dir_exists(path)) s = FAIL(ERR_INPUT, "%s: is a file, expected a directory", path);
    return s;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

Status dir_remove(const char *path)
{
    if (!file_exists(path)) return OK;
    return nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) ? IO_FAIL(path, "remove it") : OK;
}

Status dir_rename(const char *from, const char *to)
{
    if (rename(from, to)) return IO_FAIL(to, "rename the finished directory");
    return sync_parent(to);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

Status dir_list(DirList *l, const char *path)
{
    *l = (DirList){0};
    DIR *d = opendir(path);
    if (!d) return IO_FAIL(path, "list it");
    int cap = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (l->n == cap) {
            cap = cap ? 2 * cap : 64;
            char **more = realloc(l->name, (size_t)cap * sizeof *more);
            CHECK(more);
            l->name = more;
        }
        l->name[l->n++] = text("%s", e->d_name);
    }
    closedir(d);
    if (l->n) qsort(l->name, (size_t)l->n, sizeof *l->name, by_name);
    return OK;
}

void dir_list_free(DirList *l)
{
    for (int i = 0; i < l->n; i++) free(l->name[i]);
    free(l->name);
    *l = (DirList){0};
}

bool file_is_temp(const char *name)
{
    const char *end = name + strlen(name), *number = end;
    while (number > name && isdigit((unsigned char)number[-1])) number--;
    return number < end && number - name >= 5 && !strncmp(number - 5, ".tmp-", 5);
}

static int sweep_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    char *part = text("%s", path);
    for (int level = where->level; level > 0; level--) { /* the parts of the path below the start */
        char *slash = strrchr(part, '/');
        if (file_is_temp(slash + 1)) {
            remove(path);
            break;
        }
        *slash = 0;
    }
    free(part);
    return 0;
}

void file_sweep_temps(const char *dir) { nftw(dir, sweep_one, 16, FTW_DEPTH | FTW_PHYS); }

/* ---- SHA-256 -------------------------------------------------------------------------- */

struct Hash { EVP_MD_CTX *md; };

Hash *hash_new(void)
{
    Hash *h = malloc(sizeof *h);
    CHECK(h);
    h->md = EVP_MD_CTX_new();
    CHECK(h->md && EVP_DigestInit_ex(h->md, EVP_sha256(), NULL) == 1);
    return h;
}

void hash_add(Hash *h, const void *data, size_t size)
{
    CHECK(EVP_DigestUpdate(h->md, data, size) == 1);
}

void hash_end(Hash *h, char hex[HASH_TEXT])
{
    unsigned char sum[32];
    CHECK(EVP_DigestFinal_ex(h->md, sum, NULL) == 1);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    EVP_MD_CTX_free(h->md);
    free(h);
}

void hash_bytes(char hex[HASH_TEXT], const void *data, size_t size)
{
    Hash *h = hash_new();
    hash_add(h, data, size);
    hash_end(h, hex);
}

Status hash_file(char hex[HASH_TEXT], const char *path)
{
    FILE *f;
    uint64_t size;
    TRY(open_regular(&f, &size, path));
    Hash *h = hash_new();
    static _Thread_local char buffer[1 << 16];
    size_t n;
    while ((n = fread(buffer, 1, sizeof buffer, f)) > 0) hash_add(h, buffer, n);
    bool bad = ferror(f);
    fclose(f);
    hash_end(h, hex);
    return bad ? FAIL(ERR_INPUT, "%s: cannot read it", path) : OK;
}
