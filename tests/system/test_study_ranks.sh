#!/bin/bash
# test_study_ranks.sh - a study shared by several CPU ranks gives the bytes of one: on 2 and 4 ranks; stopped by a signal
# to one of them, its rank killed, and continued on other numbers; as jobs of single stages side by side. A plan says
# what a run then does. $1: the program. Skipped where MPI is not there.
source "$SOURCE_DIR/tests/shell.sh"
export OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT "${!SLURM_@}" "${!OMPI_COMM_@}" "${!PMIX_@}"
program=$1
config=$SOURCE_DIR/configs/tiny.ini
if ! command -v mpirun >/dev/null || ! ldd "$program" | grep -q libmpi; then
    echo "SKIPPED: built without MPI, or no mpirun"
    exit 77
fi
export ASAN_OPTIONS=detect_leaks=0 # MPI's own
must() { "$@" >"$work/out" 2>"$work/err" || fail "${*:2}: exit code $?: $(tail -1 "$work/err")"; }
refuse() { # CODE WORDS COMMAND...
    "${@:3}" >"$work/out" 2>"$work/err"
    local got=$?
    [ $got = "$1" ] || fail "${*:3}: exit code $got, expected $1"
    grep '^equipoise: ' "$work/err" | grep -qF -- "$2" || fail "${*:3}: no \"$2\" in $(tail -1 "$work/err")"
}
sums() { (cd "$1" && find synthetic stages -name '*.png' -o -name '*.csv' -o -name '*.safetensors' | sort | xargs sha256sum); }
same() { # RUN: films, predictions, weights and numbers of the run on one rank
    cmp "$work/one/metrics.json" "$1/metrics.json" || fail "$(basename "$1"): other metrics.json"
    sums "$1" | cmp - "$work/sums" || fail "$(basename "$1"): other films, predictions or weights"
    find "$1" -name '*.tmp-*' -o -name lock -o -name stopping | grep . && fail "$(basename "$1"): leftovers"
}

# ---- one rank, then several; none of them does all
must "$program" study "$config" --run "$work/one"
sums "$work/one" >"$work/sums"
[ "$(wc -l <"$work/sums")" -gt 100 ] || fail "a run of $(wc -l <"$work/sums") files"
for n in 2 4; do
    must timeout 300 mpirun --oversubscribe -n $n "$program" study "$config" --run "$work/on-$n"
    same "$work/on-$n"
    grep -q "p Holm" "$work/out" && [ "$(grep -c "p Holm" "$work/out")" = 2 ] || fail "not one table on $n ranks"
done
[ "$(grep -h '"rank"' "$work"/on-4/stages/*/times.json | sort -u | wc -l)" -ge 2 ] || fail "no stages ran side by side"
grep -q '"ranks": 2' "$work"/on-4/stages/ldm-a/times.json || fail "no diffusion model was trained by two ranks"
grep -hE '"pace".*"seconds":\[[0-9.e-]+, [0-9.e-]+\]' "$work"/on-4/log*.jsonl | grep -qi ldm || fail "no times of the ranks that trained together"
grep -q ' rank.*worked on stages' "$work/on-4/report.html" || fail "no timeline in the report"

# ---- the plan: the same stages on the same ranks, the memory that was taken
must "$program" study "$config" --plan --ranks 4 --speed 0.01 --link 1
grep -q "4 ranks.*10.0 GFLOP/s a rank (given)" "$work/out" || fail "the plan's head: $(head -1 "$work/out")"
for stage in baseline-a ldm-a augmented-b; do
    read -r first ranks bytes < <(tr -d ' ",' <"$work/on-4/stages/$stage/times.json" |
        awk -F: '$1 == "rank" { r = $2 } $1 == "ranks" { n = $2 } $1 == "bytes" { b = $2 } END { print r, n, b }')
    last=$((first + ranks - 1))
    [ $last = "$first" ] && who=$first || who=$first-$last
    most=$(awk -v b="$bytes" 'BEGIN { m = b / 1048576; printf m < 10 ? "%.2f MiB" : "%.1f MiB", m }')
    grep "^$stage " "$work/out" | grep -q " $who .* $most" || fail "$stage: ran on $who with $most, planned was: $(
        grep "^$stage " "$work/out")"
done
# two ranks send half of the gradients twice: as many ns as bytes; the last bucket of one is not hidden
grep -q '^ldm-a .* 990 KiB *1 *1.01 ms *1.01 ms ' "$work/out" || fail "the exchange: $(grep '^ldm-a' "$work/out")"
[ ! -e runs ] || fail "a plan made a folder"

# ---- started by hand below mpirun, so that each rank's exit code and process are known
ranks() { # N RUN: in the background
    rm -f "$work"/pid.* "$work"/rc.* "$work/out" "$work/err"
    # shellcheck disable=SC2016 # of the inner shell
    timeout 300 mpirun --oversubscribe -n "$1" bash -c '
        "${@:2}" & echo $! >"$1/pid.$OMPI_COMM_WORLD_RANK.tmp"
        mv "$1/pid.$OMPI_COMM_WORLD_RANK.tmp" "$1/pid.$OMPI_COMM_WORLD_RANK"
        wait $!; code=$?; echo $code >"$1/rc.$OMPI_COMM_WORLD_RANK"
        [ $code -lt 128 ] || for _ in $(seq 300); do # mpirun ends the others when it sees who died
            [ "$(ls "$1"/rc.* | wc -l)" = "$OMPI_COMM_WORLD_SIZE" ] && break
            sleep 0.1
        done' ranks "$work" \
        "$program" study "$config" --run "$2" --resume >"$work/out" 2>"$work/err" &
    job=$!
}
until_there() { # PATTERN
    for _ in $(seq 3000); do
        compgen -G "$1" >/dev/null && return
        sleep 0.02
    done
    fail "$1 did not come"
}
until_said() { # PATTERN, in what the running job prints
    for _ in $(seq 3000); do
        grep -Eqs "$1" "$work/out" "$work/err" && return
        kill -0 "$job" 2>/dev/null || break
        sleep 0.02
    done
    fail "the job did not print $1: $(tail -n 3 "$work/out" "$work/err")"
}
codes() { cat "$work"/rc.* | sort | uniq -c | awk '{ printf "%s%d x %d", sep, $1, $2; sep = ", " }'; }

# a signal to one rank stops all of them, each group at a step
ranks 4 "$work/chain"
until_there "$work/chain/stages/ldm-?/checkpoints/step-*/MANIFEST.json"
kill -USR1 "$(cat "$work/pid.3")"
wait $job
[ "$(codes)" = "4 x 75" ] || fail "after a signal to one rank: $(codes): $(tail -3 "$work/err")"
[ "$(grep -c '^equipoise: .*--resume' "$work/err")" = 1 ] || fail "after a signal: $(grep '^equipoise' "$work/err")"
[ ! -e "$work/chain/metrics.json" ] || fail "the signal came too late"

# continued on two; one of them is killed: the other ends soon, and says who died
ranks 2 "$work/chain"
until_said ' [0-9]+/[0-9]+' # at work, whichever stage the signal had left
began=$(date +%s)
kill -KILL "$(cat "$work/pid.1")"
wait $job
[ $(($(date +%s) - began)) -lt 30 ] || fail "a rank was killed, and the job ended $(($(date +%s) - began)) s later"
[ "$(codes)" = "1 x 137, 1 x 6" ] || fail "a rank was killed: $(codes)"
[ "$(grep -c '^equipoise: rank 1 on host .* died' "$work/err")" = 1 ] || fail "a rank was killed: $(cat "$work/err")"
# and finished on three
must timeout 300 mpirun --oversubscribe -n 3 "$program" study "$config" --run "$work/chain" --resume
same "$work/chain"

# ---- one group fails: all end, with its message and code
timeout 300 mpirun --oversubscribe -n 4 "$program" study "$config" --run "$work/bad" --set classifier.learning_rate=10 \
    --set classifier.epochs=60 --set classifier.batch=16 --set classifier.accumulate=1 --set ldm.accumulate=1 \
    --set ldm.steps=100000 >"$work/out" 2>"$work/err"
rc=$?
[ $rc = 7 ] || fail "numbers that went bad in one group: exit code $rc"
[ "$(grep -c '^equipoise: ' "$work/err")" = 1 ] && grep -q '^equipoise: .*learning_rate' "$work/err" ||
    fail "numbers that went bad: $(grep '^equipoise: ' "$work/err")"

# ---- stages as jobs of their own
stage() { "$program" study "$config" --run "$work/stages" --stage "$@"; }
refuse 3 "expected the stage prepare to be complete" stage ldm-a
[ ! -e "$work/stages" ] || fail "a refused stage made a folder"
refuse 2 "did you mean ldm-a?" stage lmd-a
must stage prepare
for s in baseline-a baseline-b; do stage $s >"$work/$s.out" 2>&1 & done
"$program" study "$config" --run "$work/stages" --stage ldm-a >"$work/ldm-a.out" 2>&1 &
until_there "$work/stages/stages/ldm-a/stage.json"
kill -STOP $! # it stays there
refuse 2 "held by process" stage ldm-a
refuse 2 "held by process" "$program" study "$config" --run "$work/stages" --resume
kill -CONT $!
wait
must timeout 300 mpirun --oversubscribe -n 2 "$program" study "$config" --run "$work/stages" --stage ldm-b
refuse 3 "expected the stage synth-a to be complete" stage augmented-a
for s in synth-a synth-b; do stage $s >"$work/$s.out" 2>&1 & done
wait
refuse 2 "ldm.steps = 7" stage augmented-a --set ldm.steps=7
for s in augmented-a augmented-b; do stage $s >"$work/$s.out" 2>&1 & done
wait
must timeout 300 mpirun --oversubscribe -n 3 "$program" study "$config" --run "$work/stages" --stage evaluate
must stage report
must "$program" study "$config" --run "$work/stages" --list-stages
[ "$(grep -c ' complete ' "$work/out")" = 10 ] || fail "--list-stages: $(cat "$work/out")"
same "$work/stages"

[ $failed = 0 ] && echo "1, 2, 3 and 4 ranks: the same bytes"
exit $failed
