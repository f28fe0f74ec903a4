/* conduct.c - groups, turns, and how all come to the same end; see conduct.h. */
#include "study/conduct.h"
#include "base/signal.h"
#include "study/board.h"
#include "study/times.h"
#include <stdlib.h>

typedef struct {
    Study *s;
    Comm *world;
    const Slot *slot;
    Comm *group[N_STEP]; /* owned where `own`; NULL: this rank alone, or not in it */
    bool own[N_STEP];
    Board *board;
    Failure failure; /* of this rank */
    bool torn;       /* it cannot be told by agreement */
} Conductor;

static bool same_ranks(const Slot *a, const Slot *b)
{
    return a->first == b->first && a->n == b->n;
}

static bool share_ranks(const Slot *a, const Slot *b)
{
    return a->first < b->first + b->n && b->first < a->first + a->n;
}

/* Every rank splits in the same order; equal groups are one. */
static Status make_groups(Conductor *c)
{
    int rank = comm_rank(c->world);
    for (int i = 0; i < N_STEP; i++) {
        const Slot *slot = &c->slot[i];
        int same = 0;
        if (slot->n == 1) continue;
        while (!same_ranks(&c->slot[same], slot)) same++;
        if (slot->n == comm_size(c->world)) {
            c->group[i] = c->world;
        } else if (same < i) {
            c->group[i] = c->group[same];
        } else {
            Comm *part;
            TRY(comm_split(&part, c->world, slot_has(slot, rank)));
            c->own[i] = slot_has(slot, rank);
            if (c->own[i]) c->group[i] = part;
            else comm_close(part);
        }
    }
    return OK;
}

/* Until what step i needs is complete, and what ranks of its group do before it. */
static Status wait_turn(const Conductor *c, int i)
{
    const Slot *own = &c->slot[i];
    for (int k = 0; k < N_STEP; k++) {
        bool before = c->slot[k].place < own->place && share_ranks(own, &c->slot[k]);
        Stage *stage = step_stage(c->s, k);
        if (stage && (before || step[i].needs >> k & 1)) TRY(stage_wait(stage));
    }
    return signal_check();
}

static void announce(const Conductor *c, int i)
{
    Text title = {0};
    step_title(&title, i, c->s->config);
    log_info(c->s->log, "stage %d of %d: %s", c->slot[i].place + 1, N_STEP, title.s);
    free(title.s);
}

/* By the group's ranks; the first one keeps the times. */
static Status run_step(Study *s, int i, int first_rank)
{
    Stage *stage = step_stage(s, i);
    StageTime time = time_begin(first_rank, comm_size(s->comm));
    device_peak_restart(s->device);
    Status status = step_run(s, i);
    if (!stage || !stage->begun || stage->found || comm_rank(s->comm)) return status;
    Failure failure;
    status_keep(&failure, status);
    time_end(&time, stage, status, device_peak(s->device), s->log);
    return status_restore(&failure);
}

/* Step i, which this rank has a part in. A failure is torn where others may wait for this rank in
 * what it has left: where not all of the group have it. */
static Status take_turn(Conductor *c, int i)
{
    Study *s = c->s;
    s->comm = c->group[i];
    Status status = wait_turn(c, i);
    if (!status && i != STEP_PREPARE) status = study_data(s);
    TRY(comm_agree(s->comm, step[i].name, status));
    log_mute(s->log, comm_rank(s->comm) != 0);
    announce(c, i);
    status = run_step(s, i, c->slot[i].first);
    log_mute(s->log, comm_rank(c->world) != 0);
    c->torn = status && s->comm && comm_agreed(s->comm) != status;
    return status;
}

static void note_failure(Conductor *c, Status status)
{
    status_keep(&c->failure, status);
    if (status != ERR_STOPPED) board_stop(c->board, status);
}

/* A rank that has failed, or stopped, takes its later turns all the same, to tell those who may be
 * waiting for it there. */
static Status run_own(Conductor *c)
{
    int order[N_STEP], rank = comm_rank(c->world);
    Status status = OK;
    for (int i = 0; i < N_STEP; i++) order[c->slot[i].place] = i;
    for (int k = 0; k < N_STEP && status != ERR_PEER && !c->torn; k++) {
        int i = order[k];
        if (!slot_has(&c->slot[i], rank)) continue;
        if (status) comm_agree(c->group[i], step[i].name, status_restore(&c->failure));
        else if ((status = take_turn(c, i))) note_failure(c, status);
    }
    return status ? status_restore(&c->failure) : stage_wait(&c->s->evaluate);
}

/* From what this rank came to, what all do; closes. */
static Status come_to_end(Conductor *c, Status status)
{
    bool together = status != ERR_PEER && !c->torn;
    if (together) status = comm_agree(c->world, "the end", status);
    board_close(c->board, together || comm_rank(c->world) == 0);
    for (int i = 0; i < N_STEP && together; i++)
        if (c->own[i]) comm_close(c->group[i]);
    return status;
}

Status conduct(Study *s, Comm *world, const Slot *slot)
{
    Conductor c = {.s = s, .world = world, .slot = slot};
    TRY(make_groups(&c));
    TRY(board_open(&c.board, s->run, world));
    return come_to_end(&c, run_own(&c));
}

/* ---- one stage alone --------------------------------------------------------------------- */

Status conduct_one(Study *s, Comm *world, int i)
{
    int rank = comm_rank(world);
    Slot slot[N_STEP] = {0};
    Conductor c = {.s = s, .world = world, .slot = slot};
    Stage *stage = step_stage(s, i);
    slot[i] = (Slot){.n = step[i].alone ? 1 : comm_size(world), .place = i};
    c.group[i] = slot[i].n > 1 ? world : NULL;
    char *folder = step_folder(s->run, i); /* other jobs work in the run folder, too */
    Status opened = board_open(&c.board, folder, world);
    free(folder);
    TRY(opened);
    s->comm = world;
    Status status = step_need(s, i, true);
    if (!status && slot_has(&slot[i], rank)) status = take_turn(&c, i);
    else if (!status && stage) status = stage_wait(stage);
    if (status) note_failure(&c, status);
    return come_to_end(&c, status);
}
