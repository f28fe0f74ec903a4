/* share.c - results of shared work; see share.h. */
#include "comm/share.h"
#include <stdlib.h>
#include <string.h>

Status share_gather(Comm *c, const char *what, Status mine, void *all, size_t bytes, int n)
{
    int ranks = comm_size(c);
    char *at = all, *own = malloc(bytes + 1), *round = malloc((size_t)ranks * bytes + 1);
    CHECK(own && round);
    Status s = comm_agree(c, what, mine);
    for (int first = 0; first < n && ranks > 1 && !s; first += ranks) {
        int k = n - first < ranks ? n - first : ranks;
        if (comm_rank(c) < k) memcpy(own, at + (size_t)comm_rank(c) * bytes, bytes);
        else memset(own, 0, bytes);
        s = comm_host_gather(c, what, round, own, bytes);
        if (!s) memcpy(at, round, (size_t)k * bytes);
        at += (size_t)k * bytes;
    }
    free(own);
    free(round);
    return s;
}
