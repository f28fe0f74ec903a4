/* ranks.c - opening and closing one rank of a command; see ranks.h. */
#include "app/ranks.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Processor threads of this rank; 0: all that it may use. Where the launcher has bound ranks to
 * processors, or OMP_NUM_THREADS stands, that is the user's choice. */
static int threads_of(const StudySettings *s, const CommPlace *p)
{
    const char *given = getenv("OMP_NUM_THREADS");
    int mine = omp_get_num_procs();
    bool bound = mine < sysconf(_SC_NPROCESSORS_ONLN);
    if (s->threads || p->n_local == 1 || bound || (given && *given)) return s->threads;
    return mine > p->n_local ? mine / p->n_local : 1;
}

static Status device_of(Ranks *r, const StudySettings *s)
{
    char which[sizeof s->device];
    int gpus = device_gpus();
    bool any = !strcmp(s->device, "auto") || !strcmp(s->device, "cuda");
    snprintf(which, sizeof which, "%s", s->device);
    if (r->place.n_local > 1 && !strncmp(which, "cuda:", 5))
        return FAIL(ERR_USAGE,
                    "study.device = %s with %d ranks on this machine, expected auto or cuda: each "
                    "takes a GPU of its own",
                    which, r->place.n_local);
    if (any && gpus) snprintf(which, sizeof which, "cuda:%d", r->place.local % gpus);
    return device_open(&r->device, which, s->precision, threads_of(s, &r->place), r->log);
}

Status ranks_open(Ranks *r, const Config *c, Log *log)
{
    *r = (Ranks){.log = log};
    TRY(comm_place(&r->place));
    log_mute(log, r->place.rank > 0);
    TRY(comm_open(&r->comm, &r->place, c->parallel.timeout_s, log));
    TRY(comm_agree(r->comm, "devices", device_of(r, &c->study)));
    TRY(comm_attach(r->comm, r->device));
    if (r->place.world > 1)
        log_info(log, "%d ranks (%s), each on %s", r->place.world, r->place.found_by,
                 device_text(r->device));
    return OK;
}

Status ranks_close(Ranks *r, Status s)
{
    comm_abort(r->comm, s);
    if (s && !r->comm) log_mute(r->log, false);
    Status closed = comm_close(r->comm);
    device_close(r->device);
    r->comm = NULL;
    r->device = NULL;
    return s ? s : closed;
}
