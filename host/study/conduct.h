/* conduct.h - one rank's way through the stages of a study.
 *
 * It runs, in the order of the plan, the stages that it has a place in, with the other ranks of each
 * one's group. Before a stage it waits until the records say that what the stage needs is complete, and
 * what other ranks of the group have to do before; so no collective waits for a stage. The records are
 * files: all ranks see the same run folder.
 *
 * A group that fails makes the others stop at their next step, and all end with its failure. A signal
 * to any rank stops all; what they have done is kept.
 */
#ifndef CONDUCT_H
#define CONDUCT_H
#include "study/schedule.h"
#include "study/steps.h"

/* slot: [N_STEP], the same on all ranks. s: opened, on the device that world is attached to. All ranks
 * come to the same Status, but where one fails while the others of its group wait for it. */
Status conduct(Study *s, Comm *world, const Slot *slot);

/* One stage, by all ranks; ERR_INPUT where what it needs is not complete. */
Status conduct_one(Study *s, Comm *world, int i);
#endif
