#!/usr/bin/env bash
# check.sh - configs/slurm/study.sbatch with the tiny study under a real Slurm of two nodes: `make check-slurm`.
#
#   1. on 1, 2 and 4 ranks: the same synthetic films, weights and metrics to the byte
#   2. a job that meets its time limit is requeued, continues and ends with the same
#   3. a rank that is killed ends the job within 30 s with a line that names it; the job run again continues
#      from its last checkpoint and ends with the same
#   4. submit.sh: each stage a job that waits for those it needs, arrays over seeds; the same bytes; a failed stage
#      cancels what needs it; a complete study submits nothing
#
# Needs root, Slurm and Open MPI (configs/slurm/README.md has the packages), and build/equipoise built with MPI.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d /tmp/eq-slurm.XXXXXX)
export SLURM_TEST_DIR=$work/slurm SLURM_CONF=$work/slurm/slurm.conf
export EQUIPOISE=${EQUIPOISE:-$PWD/build/equipoise} OMP_NUM_THREADS=1
# The ranks of this test share one machine's memory file system and two cores.
export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_mpi_yield_when_idle=1
passed=0 failed=0 reference=one

say() { printf '%s\n' "slurm: $*"; }
ok() { passed=$((passed + 1)) && say "ok: $*"; }
bad() {
    failed=$((failed + 1))
    say "FAILED: $1"
    tail -n 15 "${@:2}" 2>/dev/null | sed 's/^/    /'
}
finish() {
    tests/slurm/cluster.sh down || true
    [ "$failed" = 0 ] && rm -rf "$work" || say "what is left to look at: $work"
}
trap finish EXIT
for tool in slurmctld slurmd sbatch mpirun; do
    if ! command -v $tool >/dev/null; then
        say "skipped: $tool is not here (configs/slurm/README.md)"
        trap - EXIT
        exit 77
    fi
done

# Submits the study; prints the job's number. NAME nodes ranks-per-node, then options of sbatch.
submit() {
    CONFIG=$PWD/configs/tiny.ini RUN=$work/$1 sbatch --parsable --nodes="$2" --ntasks-per-node="$3" --chdir="$PWD" \
        --output="$work/$1.log" "${@:4}" configs/slurm/study.sbatch
}
state() { scontrol -o show job "$1" | grep -o 'JobState=[A-Z_]*' | cut -d= -f2; }
ended() { case $(state "$1") in COMPLETED | FAILED | TIMEOUT | CANCELLED | NODE_FAIL) true ;; *) false ;; esac }
wait_for() { # job, seconds
    for _ in $(seq $((4 * $2))); do
        ended "$1" && return
        sleep .25
    done
    return 1
}
# What must not depend on how the run went. Logs, times and the timeline may.
results() { (cd "$work/$1" && find synthetic stages metrics.json -type f \( -name '*.png' -o -name '*.safetensors' -o \
    -name 'metrics.json' -o -name 'predictions*.csv' -o -name 'manifest.csv' \) ! -path '*checkpoints*' -print0 |
    sort -z | xargs -0 sha256sum); }
same() { # as the run on one rank
    if [ ! -s "$work/$1/metrics.json" ]; then
        bad "$2: no metrics.json" "$work/$1.log"
    elif results $reference >"$work/one.sums" && results "$1" >"$work/$1.sums" && cmp -s "$work/one.sums" "$work/$1.sums"; then
        ok "$2: $(wc -l <"$work/one.sums") files as on one rank"
    else
        bad "$2: other results than on one rank" <(diff "$work/one.sums" "$work/$1.sums")
    fi
}

if [ "$(id -u)" != 0 ] || ! unshare -m --propagation private mount -t tmpfs tmpfs /dev/shm 2>/dev/null; then
    say "skipped: nodes need root and a /dev/shm of their own, which cannot be mounted here"
    trap - EXIT
    exit 77
fi
tests/slurm/cluster.sh up 2 2
say "two nodes of two processors are up"

for run in "one 1 1" "two 2 1" "four 2 2"; do
    read -r name nodes ranks <<<"$run"
    began=$SECONDS
    job=$(submit "$name" "$nodes" "$ranks")
    wait_for "$job" 300 || bad "$name: not done after 300 s" "$work/$name.log"
    if [ "$name" = one ]; then
        took=$((SECONDS - began + 1))
        [ "$(results one 2>/dev/null | wc -l)" -gt 10 ] || { bad "one rank: no results" "$work/one.log"; exit 1; }
    else
        same "$name" "$name ranks on $nodes nodes"
    fi
done

# A run that a minute is too short for, whatever the machine: as many steps as take it 80 s more than "one" took. Slurm looks
# at limits every half minute, so the signal comes 5 to 35 s after the start.
steps=$((24 + 80 * 48 / took + 24))
export OPTIONS="--set ldm.steps=$steps"
job=$(submit long 1 1)
wait_for "$job" 600 || bad "long: not done after 600 s" "$work/long.log"
reference=long

job=$(submit limit 2 1 --time=1 --signal=B:USR1@55)
if wait_for "$job" 600 && grep -q "requeued" "$work/limit.log"; then
    ok "the time limit: checkpoint and requeue"
    same limit "$steps steps on two ranks, with $(grep -c requeued "$work/limit.log") requeues"
else
    bad "the time limit: not requeued, or not done" "$work/limit.log"
fi

job=$(submit killed 2 1)
for _ in $(seq 400); do
    ls "$work"/killed/stages/*/checkpoints/* >/dev/null 2>&1 && break
    sleep .25
done
pkill -KILL -n -f "study .*--run $work/killed" || bad "no rank to kill" "$work/killed.log"
if wait_for "$job" 30; then
    if grep -Eq 'rank [01] .*died' "$work/killed.log"; then
        ok "a killed rank: the job ends within 30 s: $(grep -Eom1 'rank [01] .*' "$work/killed.log" | cut -c1-100)"
    else
        bad "a killed rank: no line names it" "$work/killed.log"
    fi
else
    bad "a killed rank: the job goes on after 30 s" "$work/killed.log"
    scancel "$job"
fi
job=$(submit killed 2 1)
wait_for "$job" 600 || bad "the killed job, again: not done after 600 s" "$work/killed.log"
grep -q 'continuing' "$work/killed.log" || bad "the killed job, again: starts anew" "$work/killed.log"
same killed "the killed job, run again"

# ---- stages as jobs of their own
unset OPTIONS
reference=one
jobs_left() { squeue -h -o %i | wc -l; }
all_ended() { # within seconds
    for _ in $(seq $((4 * $1))); do
        [ "$(jobs_left)" = 0 ] && return
        sleep .25
    done
    return 1
}
submit_stages() { # NAME, then options of sbatch
    CONFIG=$PWD/configs/tiny.ini RUN=$work/$1 configs/slurm/submit.sh --output="$work/$1-%x-%j.log" "${@:2}"
}
SEEDS="5 6" submit_stages seeds --nodes=1 --ntasks-per-node=1 >"$work/seeds.log" 2>&1 || bad "submit.sh" "$work/seeds.log"
[ "$(wc -l <"$work/seeds.log")" = 11 ] || bad "submit.sh: not eleven jobs" "$work/seeds.log"
all_ended 600 || { bad "stages: jobs are left" <(squeue) && scancel -u root; }
cat "$work"/seeds-*.log >"$work/seeds/seed-5.log" 2>/dev/null
same seeds/seed-5 "stages as arrays of jobs over two seeds, seed 5"
if [ ! -s "$work/seeds/seed-6/metrics.json" ] || cmp -s "$work/seeds/seed-5/metrics.json" "$work/seeds/seed-6/metrics.json"; then
    bad "seed 6: no metrics.json, or that of seed 5" "$work/seeds/seed-5.log"
fi
SEEDS="5 6" submit_stages seeds --nodes=1 >"$work/again.log" 2>&1
if grep -q 'nothing to do' "$work/again.log"; then ok "a complete study submits nothing"; else bad "submitted again" "$work/again.log"; fi
OPTIONS="--set data.images=$work" submit_stages broken --nodes=1 --ntasks-per-node=1 >"$work/broken.log" 2>&1
if all_ended 60 && [ ! -e "$work/broken/metrics.json" ]; then
    ok "a stage that fails cancels those that need it"
else
    bad "a stage that fails: jobs are left, or it is complete" "$work"/broken*.log
    scancel -u root
fi

say "$passed passed, $failed failed, 0 skipped, after $SECONDS s"
[ "$failed" = 0 ]
