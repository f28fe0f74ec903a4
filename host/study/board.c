/* board.c - a thread that looks at FOLDER/stopping; see board.h. */
#include "study/board.h"
#include "base/file.h"
#include "base/signal.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum { PAUSE_US = 200000 };

struct Board {
    char *path; /* owned */
    pthread_t thread;
    atomic_bool end, told;
};

static void write_file(Board *b)
{
    /* where it cannot be written, the others are told by theirs */
    file_write(b->path, NULL, 0);
    atomic_store(&b->told, true);
}

static void look(Board *b)
{
    if (atomic_load(&b->told) || !file_exists(b->path)) return;
    signal_request_stop();
    atomic_store(&b->told, true);
}

static void *watch(void *board)
{
    Board *b = board;
    while (!atomic_load(&b->end)) {
        look(b);
        if (signal_stop_requested() && !atomic_load(&b->told)) write_file(b);
        usleep(PAUSE_US);
    }
    return NULL;
}

Status board_open(Board **out, const char *folder, Comm *world)
{
    *out = NULL;
    if (comm_size(world) == 1) return OK;
    Board *b = calloc(1, sizeof *b);
    CHECK(b);
    b->path = path_join(folder, "stopping");
    if (comm_rank(world) == 0) unlink(b->path);
    Status s = comm_barrier(world, "the board");
    bool watches = !s && !pthread_create(&b->thread, NULL, watch, b);
    if (!s && !watches) s = FAIL(ERR_SPACE, "no thread to watch %s", b->path);
    s = comm_agree(world, "the board", s);
    if (!s) {
        *out = b;
        return OK;
    }
    atomic_store(&b->end, true);
    if (watches) pthread_join(b->thread, NULL);
    free(b->path);
    free(b);
    return s;
}

Status board_stop(Board *b, Status why)
{
    Failure failure;
    status_keep(&failure, why);
    if (b) write_file(b); /* may fail, too: of a full disk */
    return status_restore(&failure);
}

void board_close(Board *b, bool stopped)
{
    if (!b) return;
    atomic_store(&b->end, true);
    pthread_join(b->thread, NULL);
    if (stopped) unlink(b->path);
    free(b->path);
    free(b);
}
