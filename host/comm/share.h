/* share.h - work of many items that ranks share by index: item i is done by rank i % ranks, and then
 * all ranks have all results. So what comes of it does not depend on the number of ranks. */
#ifndef SHARE_H
#define SHARE_H
#include "comm/comm.h"

static inline bool share_mine(const Comm *c, int i) { return i % comm_size(c) == comm_rank(c); }

/* all: [n][bytes] in host memory, of which the caller has filled its own items if `mine` is OK. Fails
 * on all ranks where it is not OK on one. */
Status share_gather(Comm *c, const char *what, Status mine, void *all, size_t bytes, int n);
#endif
