#!/bin/bash
# test_comm_nccl.sh - ranks on simulated GPUs, between which a stand-in of NCCL moves the data (fake_nccl.c): every collective,
# groups, the order of calls, and every way in which NCCL or a rank can fail the others.
# shellcheck source=tests/comm/jobs.sh
. "$SOURCE_DIR/tests/comm/jobs.sh"
rank=$(dirname "$1")/comm_rank_hostcuda
if [ ! -x "$rank" ]; then
    echo "skipped: built without CUDA"
    exit 77
fi
fake=$(dirname "$1")/fake
export EQ_LIBRARIES=$fake GPU=cuda: HOSTCUDA_DEVICES=4 FAKE_NCCL_LOG=$work/calls
h='on host [^ ]+ \(process [0-9]+\)'

# one rank alone: what bench/gpu.sh runs with NCCL itself
alone() { HOSTCUDA_CHECK=$1 "$(dirname "$rank")/nccl_alone_hostcuda" >"$work/out.0" 2>"$work/err.0"; }
alone 1 || fail "alone: exit code $?"
[ "$(grep -c 'as it goes and replayed' "$work/out.0")" = 5 ] || fail "alone: not five calls"
FAKE_NCCL_FAIL=AllGather:0 alone 0 && fail "alone: a call that fails is not seen"
EQ_LIBRARIES=$work alone 0
[ $? = 77 ] || fail "alone: without NCCL"

# job "SCENARIO [NUMBER]" WORLD CODES MS [LINE]
job() {
    job=$1
    new_port
    rm -f "$work/calls"
    ranks "$1" "$2" 0 $(($2 - 1))
    # shellcheck disable=SC2086 # a list
    ended $3
    within "$4"
    if [ $# -gt 4 ]; then said "$5"; elif [ -s "$work/err.0" ]; then fail "$job: says something"; fi
}

for n in 2 3; do
    job collectives $n "$(yes 0 | head -$n | tr '\n' ' ')" 60000
    [ "$(cat "$work"/out.*)" = ok ] || fail "collectives on $n"
    for ((r = 0; r < n; r++)); do sed -n "s/^rank $r of $n: //p" "$work/calls" >"$work/calls.$r"; done
    for ((r = 1; r < n; r++)); do
        cmp -s "$work/calls.0" "$work/calls.$r" || fail "rank $r calls NCCL otherwise than rank 0"
    done
    # Six sizes, one of them 0; all-gathers twice; the all-to-all is a group.
    for want in "AllReduce 6" "AllGather 12" "ReduceScatter 6" "Group 6" "CommAbort 0"; do
        [ "$(grep -c "^${want% *} " "$work/calls.0")" = "${want#* }" ] || fail "calls on $n ranks: expected $want"
    done
done
job split 4 '0 0 0 0' 60000

b='all-reduce "gradients"'
job 'dies 1' 2 '6 137' 15000 "rank 1 $h died while ranks wait in $b"
grep -q 'rank 0 of 2: CommAbort' "$work/calls" || fail "dies: rank 0 aborts nothing"
job 'length 1' 2 '6 6' 15000 "rank [01] $h calls $b of [0-9]+( bytes)? where rank [01] $h calls $b of [0-9]+( bytes)?"

export FAKE_NCCL_LOSE=1:1
job gpu_lost 2 '6 6' 25000 "rank [01] $h: NCCL: remote process exited or there was a network error"
[ "$(grep -c CommAbort "$work/calls")" = 2 ] || fail "gpu_lost: not all ranks abort"
unset FAKE_NCCL_LOSE

FAKE_NCCL_FAIL=AllReduce:1 job collectives 2 '6 6' 15000 "rank 1 $h: NCCL, AllReduce: unhandled system error"
FAKE_NCCL_FAIL=GetUniqueId:0 job collectives 2 '6 6' 15000 "NCCL, identity: unhandled system error"
FAKE_NCCL_FAIL=CommInitRank:1 job collectives 2 '6 6' 15000 "rank 1 $h: NCCL, start: unhandled system error"
GPU=cuda:0 job collectives 2 '2 2' 15000 \
    "ranks 0 and 1 both have GPU 0000:01:00.0 of host [^ ]+, expected one rank per GPU"
EQ_LIBRARIES=$work job collectives 2 '4 4' 15000 "several ranks on GPUs need NCCL 2.18 or later: $work/libnccl.so.2: .*"
exit $failed
