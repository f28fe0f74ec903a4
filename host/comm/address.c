/* address.c - rank 0's address from the environment, or from this host's interfaces. */
#include "comm/address.h"
#include "base/text.h"
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

void address_first_host(char *out, size_t room, const char *list)
{
    size_t n = 0;
    for (const char *s = list; *s && *s != ',' && n + 1 < room; s++) {
        if (*s != '[') {
            out[n++] = *s;
            continue;
        }
        for (s++; *s && !strchr("-,]", *s) && n + 1 < room; s++) out[n++] = *s;
        s += strcspn(s, "]");
        if (!*s) break;
    }
    out[n] = 0;
}

/* What tells this job from others, from launchers that number theirs. */
static void job_text(Text *t, const CommPlace *p)
{
    static const char *const names[] = {"TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT",
                                        "PMIX_NAMESPACE",      "SLURM_JOB_ID",
                                        "SLURM_STEP_ID",       "SLURM_RESTART_COUNT"};
    int from = p->found_by[0] == 'm' ? 2 : p->found_by[0] == 's' ? 3 : 0;
    int to = p->found_by[0] == 'm' ? 3 : p->found_by[0] == 's' ? 6 : 2;
    for (int i = from; i < to; i++)
        if (address_variable(names[i]))
            text_add(t, "%s=%s\n", names[i], address_variable(names[i]));
}

static Status port_of_job(Address *a, const Text *job)
{
    long port = 29500;
    unsigned hash;
    const char *v = address_variable("MASTER_PORT");
    if (v && (!text_to_long(&port, v) || port < 1 || port > 65534))
        return FAIL(ERR_USAGE, "MASTER_PORT is \"%s\", expected a number from 1 to 65534", v);
    if (!v && job->n && sscanf(a->token, "%8x", &hash) == 1) port = 20000 + hash % 10000;
    /* There torchrun itself listens on MASTER_PORT. */
    const char *agent = address_variable("TORCHELASTIC_USE_AGENT_STORE");
    a->port = (int)port + (v && agent && !strcmp(agent, "True"));
    return OK;
}

Status address_of_job(Address *a, const CommPlace *p)
{
    const char *master = address_variable("MASTER_ADDR"),
               *nodes = address_variable("SLURM_STEP_NODELIST");
    Text job = {0};
    *a = (Address){0};
    job_text(&job, p);
    hash_bytes(a->token, job.s ? job.s : "", job.n);
    Status s = port_of_job(a, &job);
    free(job.s);
    TRY(s);
    if (!master && p->n_local == p->world) master = "127.0.0.1";
    if (master && strlen(master) >= sizeof a->hosts[0])
        return FAIL(ERR_USAGE, "MASTER_ADDR is \"%s\", expected at most %zu letters", master,
                    sizeof a->hosts[0] - 1);
    if (master) snprintf(a->hosts[0], sizeof a->hosts[0], "%s", master);
    else if (nodes && !strcmp(p->found_by, "srun"))
        address_first_host(a->hosts[0], sizeof a->hosts[0], nodes);
    if (a->hosts[0][0]) return OK;
    return FAIL(ERR_USAGE,
                "MASTER_ADDR is not set: %d ranks on several hosts, started by %s, expected "
                "the name of rank 0's host",
                p->world, p->found_by);
}

Status address_of_this_host(Address *a)
{
    unsigned char random[32];
    struct ifaddrs *list = NULL;
    int n = 0, most = (int)(sizeof a->hosts / sizeof *a->hosts);
    *a = (Address){0};
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return FAIL(ERR_BUG, "random bytes: %s", strerror(errno));
    hash_bytes(a->token, random, sizeof random);
    snprintf(a->hosts[n++], sizeof *a->hosts, "127.0.0.1");
    if (!getifaddrs(&list))
        for (const struct ifaddrs *i = list; i && n < most - 1; i = i->ifa_next) {
            int family = i->ifa_addr ? i->ifa_addr->sa_family : 0;
            bool usable = (i->ifa_flags & IFF_UP) && !(i->ifa_flags & IFF_LOOPBACK);
            socklen_t size =
                family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
            if (!usable || (family != AF_INET && family != AF_INET6)) continue;
            if (!getnameinfo(i->ifa_addr, size, a->hosts[n], sizeof *a->hosts, NULL, 0,
                             NI_NUMERICHOST))
                n++;
        }
    if (list) freeifaddrs(list);
    if (n < most) gethostname(a->hosts[n], sizeof *a->hosts - 1);
    return OK;
}
