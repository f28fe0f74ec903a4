/* times.c - see times.h. */
#include "study/times.h"
#include "stats/evaluation.h"
#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { MOST_BYTES = 16 << 20 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

StageTime time_begin(int rank, int ranks) { return (StageTime){now_s(), rank, ranks}; }

/* What is there; an empty list where that is nothing, or damaged. */
static json_t *read_list(const char *path)
{
    char *text = NULL;
    size_t size;
    json_t *list = NULL;
    if (file_exists(path) && !file_read(&text, &size, path, MOST_BYTES))
        list = json_loadb(text, size, 0, NULL);
    free(text);
    if (json_is_array(list)) return list;
    json_decref(list);
    return json_array();
}

void time_end(const StageTime *t, const Stage *s, Status how, size_t bytes, Log *log)
{
    char *path = path_join(s->folder, "times.json");
    json_t *list = read_list(path);
    double ended = fmax(t->began_s, now_s()); /* where the clock was set back meanwhile */
    json_t *one = json_pack("{s:f, s:f, s:i, s:i, s:s, s:I}", "began", t->began_s, "ended", ended,
                            "rank", t->rank, "ranks", t->ranks, "how",
                            how == OK            ? "done"
                            : how == ERR_STOPPED ? "stopped"
                                                 : "failed",
                            "bytes", (json_int_t)bytes);
    CHECK(list && one && !json_array_append_new(list, one));
    if (json_write(list, path)) log_warn(log, "%s", status_message());
    json_decref(list);
    free(path);
}
