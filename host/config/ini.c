/* ini.c - reads INI files through inih, which is forgiving where we must not be.
 *
 * inih cuts lines at 199 characters, goes on after an error, joins indented lines to the value
 * before, ignores what stands behind a section's bracket, never tells of empty or repeated
 * sections and gives its handler no line number. So each line is checked before inih sees it: it
 * reads through our own line source, which counts, and which ends the file at the first error.
 */
#include "config/config.h"
#include <ini.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST = 198, LARGEST_FILE = 1 << 20 };

typedef struct {
    Config *c;
    const char *path, *next, *end; /* what is left of the file */
    char *folder;                  /* owned */
    int line;
    Text seen;        /* owned: "\n[section]" and "\nsection.key" of what was read */
    Status status;    /* of the first failure */
    char origin[512]; /* path:line */
} Ini;

static bool seen_before(Ini *in, const char *name)
{
    Text key = {0};
    text_add(&key, "\n%s\n", name);
    bool seen = in->seen.s && strstr(in->seen.s, key.s);
    if (!seen) text_add(&in->seen, "%s", key.s);
    free(key.s);
    return seen;
}

static Status check_section(Ini *in, const char *line, size_t n)
{
    const char *close = memchr(line, ']', n);
    if (!close)
        return FAIL(ERR_USAGE, "%s: found %.*s, expected [section]", in->origin, (int)n, line);
    const char *behind = close + 1, *end = line + n;
    while (behind < end && (*behind == ' ' || *behind == '\t')) behind++;
    if (behind < end && (*behind != ';' || behind == close + 1))
        return FAIL(ERR_USAGE, "%s: found \"%.*s\" behind [section]", in->origin,
                    (int)(end - behind), behind);
    char name[LONGEST + 1] = "";
    memcpy(name, line + 1, (size_t)(close - line - 1));
    TRY(config_need_section(name, in->origin));
    char bracketed[LONGEST + 3];
    snprintf(bracketed, sizeof bracketed, "[%s]", name);
    if (seen_before(in, bracketed))
        return FAIL(ERR_USAGE, "%s: section %s stands here a second time", in->origin, bracketed);
    return OK;
}

/* One line without its end, before inih reads it. */
static Status check_line(Ini *in, const char *line, size_t n)
{
    if (memchr(line, 0, n))
        return FAIL(ERR_USAGE, "%s: holds a NUL byte, expected text", in->origin);
    if (n > LONGEST)
        return FAIL(ERR_USAGE, "%s: has %zu characters, at most %d are read", in->origin, n,
                    LONGEST);
    size_t blanks = 0;
    while (blanks < n && (line[blanks] == ' ' || line[blanks] == '\t')) blanks++;
    if (blanks == n || line[blanks] == ';' || line[blanks] == '#') return OK;
    if (blanks)
        return FAIL(ERR_USAGE,
                    "%s: is indented; a value stands on one line, and names start theirs",
                    in->origin);
    if (line[0] == '[') return check_section(in, line, n);
    size_t mark = 0; /* inih takes a colon for an equals sign */
    while (mark < n && !strchr("=:;", line[mark])) mark++;
    if (mark == n || line[mark] != '=')
        return FAIL(ERR_USAGE, "%s: found %.*s, expected name = value", in->origin, (int)n, line);
    return OK;
}

/* fgets for inih: the next line that passed the check. */
static char *next_line(char *to, int size, void *stream)
{
    Ini *in = stream;
    if (in->status || in->next == in->end) return NULL;
    const char *newline = memchr(in->next, '\n', (size_t)(in->end - in->next));
    size_t n = (size_t)((newline ? newline : in->end) - in->next);
    const char *line = in->next;
    in->next += n + (newline != NULL);
    if (n && line[n - 1] == '\r') n--;
    snprintf(in->origin, sizeof in->origin, "%s:%d", in->path, ++in->line);
    in->status = check_line(in, line, n);
    if (in->status) return NULL;
    CHECK(n < (size_t)size);
    memcpy(to, line, n);
    to[n] = 0;
    return to;
}

static Status take(Ini *in, const char *section, const char *name, const char *value)
{
    if (!*section)
        return FAIL(ERR_USAGE, "%s: %s stands before the first [section]", in->origin, name);
    if (strstr(value, " #") || strstr(value, "\t#"))
        return FAIL(ERR_USAGE, "%s: # starts no comment behind a value, use ;", in->origin);
    char full[2 * LONGEST + 2];
    snprintf(full, sizeof full, "%s.%s", section, name);
    TRY(config_set_from(in->c, section, name, value, in->origin, in->folder));
    if (seen_before(in, full))
        return FAIL(ERR_USAGE, "%s: %s is set here a second time", in->origin, full);
    return OK;
}

static int handle(void *user, const char *section, const char *name, const char *value)
{
    Ini *in = user;
    in->status = take(in, section, name, value);
    return in->status == OK;
}

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path + 1)) : strdup(".");
    CHECK(folder);
    return folder;
}

Status config_read(Config *c, const char *path)
{
    char *data;
    size_t size;
    TRY(file_read(&data, &size, path, LARGEST_FILE));
    Config read = *c;
    Ini in = {
        .c = &read, .path = path, .next = data, .end = data + size, .folder = folder_of(path)};
    if (size >= 3 && !memcmp(data, "\xef\xbb\xbf", 3)) in.next += 3;
    int bad = ini_parse_stream(next_line, &in, handle, &in);
    if (bad && !in.status)
        in.status = FAIL(ERR_USAGE, "%s:%d: is neither [section] nor name = value", path, bad);
    if (!in.status) *c = read;
    free(in.seen.s);
    free(in.folder);
    free(data);
    return in.status;
}
