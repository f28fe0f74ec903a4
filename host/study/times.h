/* times.h - who worked on a stage when: STAGE/times.json, a list of
 *   {"began": s, "ended": s, "rank": 0, "ranks": 2, "how": "done", "bytes": 123}
 * with seconds since 1970, the first of its ranks, their number, "done", "stopped" or "failed", and the
 * most device memory that the first one held. A start that was killed leaves no entry. For people:
 * nothing else depends on it.
 */
#ifndef TIMES_H
#define TIMES_H
#include "base/log.h"
#include "study/stage.h"

typedef struct {
    double began_s;
    int rank, ranks;
} StageTime;

StageTime time_begin(int rank, int ranks);
/* A failure to write is only warned about. */
void time_end(const StageTime *t, const Stage *s, Status how, size_t bytes, Log *log);
#endif
