/* board.c - a thread that looks at RUN/stopping; see board.h. */
#include "study/board.h"
#include "base/file.h"
#include "base/signal.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAUSE_US = 200000, MOST_BYTES = 64 };
static const char stopped[] = "stopped\n", failed[] = "failed\n";

struct Board {
    char *path; /* owned */
    pthread_t thread;
    atomic_bool end, told, failed;
};

static void write_word(Board *b, const char *word)
{
    /* where it cannot be written, the others are told by theirs */
    file_write(b->path, word, strlen(word));
    atomic_store(&b->told, true);
}

static void read_word(Board *b)
{
    char *text = NULL;
    size_t size;
    if (!file_exists(b->path) || file_read(&text, &size, b->path, MOST_BYTES)) return;
    if (!strcmp(text, failed)) atomic_store(&b->failed, true);
    free(text);
    signal_request_stop();
    atomic_store(&b->told, true);
}

static void *watch(void *board)
{
    Board *b = board;
    while (!atomic_load(&b->end)) {
        read_word(b);
        if (signal_stop_requested() && !atomic_load(&b->told)) write_word(b, stopped);
        usleep(PAUSE_US);
    }
    return NULL;
}

Status board_open(Board **out, const char *run, Comm *world)
{
    *out = NULL;
    if (comm_size(world) == 1) return OK;
    Board *b = calloc(1, sizeof *b);
    CHECK(b);
    b->path = path_join(run, "stopping");
    if (comm_rank(world) == 0) unlink(b->path);
    Status s = comm_barrier(world, "the run folder");
    if (!s && pthread_create(&b->thread, NULL, watch, b))
        s = FAIL(ERR_SPACE, "no thread to watch %s", b->path);
    s = comm_agree(world, "the run folder", s);
    if (!s) {
        *out = b;
        return OK;
    }
    free(b->path);
    free(b);
    return s;
}

void board_fail(Board *b)
{
    if (b) write_word(b, failed);
}

bool board_failed(const Board *b) { return b && atomic_load(&b->failed); }

void board_close(Board *b, bool first)
{
    if (!b) return;
    atomic_store(&b->end, true);
    pthread_join(b->thread, NULL);
    if (first) unlink(b->path);
    free(b->path);
    free(b);
}
