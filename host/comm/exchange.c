/* exchange.c - see exchange.h. */
#include "comm/exchange.h"
#include <math.h>

/* All gradients, but a rank's own shard of them, once. */
static double once_s(const Exchange *e)
{
    return e->ranks > 1 ? e->bytes * (e->ranks - 1) / e->ranks / e->link : 0;
}

double exchange_s(const Exchange *e) { return once_s(e) * (e->parts + 1); }

double exchange_exposed_s(const Exchange *e)
{
    double behind = e->sharded ? once_s(e) : 0, during = exchange_s(e) - behind;
    return behind + fmax(during / e->buckets, during - e->hide_s * (1 - 1. / e->buckets));
}
