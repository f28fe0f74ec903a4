#!/usr/bin/env bash
# check.sh - configs/slurm/study.sbatch with the tiny study under a real Slurm of two nodes: `make check-slurm`.
#
#   1. on 1, 2 and 4 ranks: the same synthetic films, weights and metrics to the byte
#   2. a job that meets its time limit is requeued, continues and ends with the same
#   3. a rank that is killed ends the job within 30 s with a line that names it; the job run again continues
#      from its last checkpoint and ends with the same
#   4. submit.sh: each stage a job that waits for those it needs, arrays over seeds; the same bytes; a failed stage
#      cancels what needs it; a complete study submits nothing
#   5. an array of two seeds: each is told to stop, requeues only itself and ends with the same
#
# Needs root, Slurm and Open MPI (configs/slurm/README.md has the packages), and build/equipoise built with MPI.
set -euo pipefail
cd "$(dirname "$0")/../.."
say() { printf '%s\n' "slurm: $*"; }
skip() { say "skipped: $*" && exit 77; }
[ "$(id -u)" = 0 ] || skip "nodes need root, this is $(id -un)"
for tool in slurmctld slurmd sbatch mpirun; do
    command -v $tool >/dev/null || skip "$tool is not here (configs/slurm/README.md)"
done
said=$(unshare -m --propagation private mount -t tmpfs tmpfs /dev/shm 2>&1) ||
    skip "nodes need a /dev/shm of their own, which cannot be mounted here: $said"

work=$(mktemp -d /tmp/eq-slurm.XXXXXX)
export SLURM_TEST_DIR=$work/slurm SLURM_CONF=$work/slurm/slurm.conf
export EQUIPOISE=${EQUIPOISE:-$PWD/build/equipoise} OMP_NUM_THREADS=1
# The ranks of this test share one machine's memory file system and two cores.
export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_mpi_yield_when_idle=1
passed=0 failed=0 reference=one

ok() { passed=$((passed + 1)) && say "ok: $*"; }
bad() {
    failed=$((failed + 1))
    say "FAILED: $1"
    tail -n 15 "${@:2}" 2>/dev/null | sed 's/^/    /' || true
}
finish() {
    local code=$?
    tests/slurm/cluster.sh down || true
    if [ $code = 0 ]; then rm -rf "$work"; else say "what is left to look at: $work"; fi
}
trap finish EXIT
# Submits the study; prints the job's number. NAME nodes ranks-per-node, then options of sbatch.
submit() {
    CONFIG=$PWD/configs/tiny.ini RUN=$work/$1 sbatch --parsable --nodes="$2" --ntasks-per-node="$3" --chdir="$PWD" \
        --output="$work/$1.log" "${@:4}" configs/slurm/study.sbatch
}
state() { scontrol -o show job "$1" | grep -o 'JobState=[A-Z_]*' | cut -d= -f2; }
ended() { case $(state "$1") in COMPLETED | FAILED | TIMEOUT | CANCELLED | NODE_FAIL) true ;; *) false ;; esac }
wait_until() { # seconds, command that ends well then
    for _ in $(seq $((4 * $1))); do
        "${@:2}" >/dev/null 2>&1 && return
        sleep .25
    done
    return 1
}
wait_for() { wait_until "$2" ended "$1"; } # job, seconds
has_checkpoint() { ls "$work/$1"/stages/*/checkpoints/*; }
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

tests/slurm/cluster.sh up 2 2
say "two nodes of two processors are up"

for run in "one 1 1" "two 2 1" "four 2 2"; do
    read -r name nodes ranks <<<"$run"
    job=$(submit "$name" "$nodes" "$ranks")
    wait_for "$job" 300 || bad "$name: not done after 300 s" "$work/$name.log"
    if [ "$name" = one ]; then
        [ "$(results one 2>/dev/null | wc -l)" -gt 10 ] || { bad "one rank: no results" "$work/one.log"; exit 1; }
    else
        same "$name" "$name ranks on $nodes nodes"
    fi
done

# A run that a minute is too short for, whatever the machine: as many steps as take a rank a minute, by what the 24 of "one"
# took. Slurm looks at limits every half minute, so the signal comes 5 to 35 s after the start.
steps=$(awk -F '[:,]' '/began/ { began = $2 } /ended/ { ended = $2 } END { print int(60 * 24 / (ended - began)) }' \
    "$work/one/stages/ldm-a/times.json")
[ "${steps:-0}" -ge 24 ] || { bad "one rank: no times of ldm-a"; exit 1; }
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
wait_until 100 has_checkpoint killed || bad "no checkpoint after 100 s" "$work/killed.log"
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
no_jobs() { [ -z "$(squeue -h)" ]; }
submit_stages() { # NAME, then options of sbatch
    CONFIG=$PWD/configs/tiny.ini RUN=$work/$1 configs/slurm/submit.sh --output="$work/$1-%x-%j.log" "${@:2}"
}
SEEDS="5 6" submit_stages seeds --nodes=1 --ntasks-per-node=1 >"$work/seeds.log" 2>&1 || bad "submit.sh" "$work/seeds.log"
[ "$(wc -l <"$work/seeds.log")" = 11 ] || bad "submit.sh: not eleven jobs" "$work/seeds.log"
wait_until 600 no_jobs || { bad "stages: jobs are left" <(squeue) && scancel -u root; }
cat "$work"/seeds-*.log >"$work/seeds/seed-5.log" 2>/dev/null
same seeds/seed-5 "stages as arrays of jobs over two seeds, seed 5"
if [ ! -s "$work/seeds/seed-6/metrics.json" ] || cmp -s "$work/seeds/seed-5/metrics.json" "$work/seeds/seed-6/metrics.json"; then
    bad "seed 6: no metrics.json, or that of seed 5" "$work/seeds/seed-5.log"
fi
next_job() { scontrol show config | awk '$1 == "NEXT_JOB_ID" { print $3 }'; }
next=$(next_job)
if SEEDS="5 6" submit_stages seeds --nodes=1 >"$work/again.log" 2>&1 && [ "$(next_job)" = "$next" ] &&
    [ "$(cat "$work/again.log")" = "nothing to do: all stages are complete" ]; then
    ok "a complete study submits nothing"
else
    bad "a complete study: $(($(next_job) - next)) jobs, expected none" "$work/again.log"
fi
next=$(next_job)
if OPTIONS="--set data.images=$work" submit_stages broken --nodes=1 --ntasks-per-node=1 >"$work/broken.log" 2>&1 &&
    [ "$(next_job)" = $((next + 11)) ] && wait_until 60 no_jobs; then
    while read -r job stage _; do echo "$stage $(state "$job")"; done <"$work/broken.log" >"$work/broken.states"
    if [ "$(head -1 "$work/broken.states")" = "prepare FAILED" ] &&
        [ "$(grep -c ' CANCELLED$' "$work/broken.states")" = 10 ]; then
        ok "a stage that fails cancels the ten that need it"
    else
        bad "a stage that fails: not all that need it are cancelled" "$work/broken.states"
    fi
else
    bad "a stage that fails: $(($(next_job) - next)) jobs, expected eleven, or not done after 60 s" "$work"/broken*.log
    scancel -u root
fi

# ---- an array of whole studies: USR1, as at a time limit, to one task and then to the other. The last task's number is
# that of the array.
tasks() { # of the array: for each how often it says that it requeues itself, and what Slurm says
    for task in 0 1; do
        echo "$task: $(grep -c requeued "$work/array-$task.log") $(scontrol -o show job "${job}_$task" |
            grep -Eo '(JobState|Restarts)=[A-Z0-9]*' | tr '\n' ' ')"
    done
}
restarted() { scontrol -o show job "${job}_$1" | grep -q 'Restarts=1'; }
job=$(SEEDS="5 6" submit array 1 1 --array=0-1 --output="$work/array-%a.log")
stop() { # task: when it has something to continue from
    wait_until 100 has_checkpoint array/seed-$((5 + $1)) && scancel --batch --signal=USR1 "${job}_$1" &&
        wait_until 60 restarted "$1" || bad "an array: task $1 is not requeued" "$work/array-$1.log"
}
first() { pkill "-$1" -f "^$EQUIPOISE study .*--run $work/array/seed-5"; } # task 0: stays where it is, or goes on
wait_until 100 has_checkpoint array/seed-5 && first STOP || bad "an array: task 0 does not work" "$work/array-0.log"
stop 1
tasks >"$work/array.half"
first CONT || bad "an array: task 0 is gone" "$work/array-0.log"
stop 0
for task in 0 1; do wait_for "${job}_$task" 300 || bad "an array: task $task is not done after 300 s" <(squeue); done
tasks >"$work/array.done"
if grep -q '^0: 0 JobState=RUNNING Restarts=0 ' "$work/array.half" &&
    [ "$(grep -c ': 1 JobState=COMPLETED Restarts=1 ' "$work/array.done")" = 2 ]; then
    ok "an array: each task requeues only itself"
else
    bad "an array: tasks requeue others, or not themselves" "$work"/array.{half,done} "$work"/array-?.log
fi
for seed in 5 6; do
    reference=seeds/seed-$seed
    same array/seed-$seed "an array whose tasks were requeued, seed $seed"
done

say "$passed passed, $failed failed, 0 skipped, after $SECONDS s"
[ "$failed" = 0 ]
