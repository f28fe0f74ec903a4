#!/bin/bash
# test_jobs_side_by_side.sh - jobs of several ranks that end badly: stages of one run folder do not stop one another, and
# where rank 0 of a lone stage fails while the others wait for its films, all end with its message and code at once.
# $1: the program. Skipped where MPI is not there.
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

# job NAME COMMAND...: two ranks in the background; NAME.pid.R and NAME.rc.R of each, NAME.err
job() {
    rm -f "$work/$1".*
    # shellcheck disable=SC2016 # of the inner shell
    timeout 300 mpirun --oversubscribe -n 2 bash -c '
        "${@:2}" & echo $! >"$1.pid.$OMPI_COMM_WORLD_RANK.tmp"
        mv "$1.pid.$OMPI_COMM_WORLD_RANK.tmp" "$1.pid.$OMPI_COMM_WORLD_RANK"
        wait $!; code=$?; echo $code >"$1.rc.$OMPI_COMM_WORLD_RANK"
        [ $code -lt 128 ] || for _ in $(seq 300); do # mpirun ends the others when it sees who died
            [ "$(ls "$1".rc.* | wc -l)" = "$OMPI_COMM_WORLD_SIZE" ] && break
            sleep 0.1
        done' ranks "$work/$1" \
        "$program" "${@:2}" >"$work/$1.out" 2>"$work/$1.err" &
    pid[$1]=$!
}
declare -A pid # of the jobs
ends() { # NAME CODES: of rank 0 and 1
    wait "${pid[$1]}"
    local got
    got=$(cat "$work/$1".rc.* | xargs)
    [ "$got" = "$2" ] || fail "$1 ended with $got, expected $2: $(tail -3 "$work/$1.err")"
}
until_there() { # PATTERN
    for _ in $(seq 3000); do
        compgen -G "$1" >/dev/null && return
        sleep 0.01
    done
    fail "$1 did not come"
}
said() { # NAME PATTERN: one line of error, and this one
    [ "$(grep -c '^equipoise: ' "$work/$1.err")" = 1 ] && grep -q "^equipoise: $2" "$work/$1.err" ||
        fail "$1: expected one line, $2: $(tail -3 "$work/$1.err")"
}

# ---- two stages at once in one run folder, too long to end; rank 1 of the one gets a signal, then rank 0 of it is
# killed: the other goes on
run=$work/run
stage() { job "$1" study "$config" --run "$run" --stage "$1" --set ldm.steps=100000 --set ldm.checkpoint_every=10; }
newest() { compgen -G "$run/stages/$1/checkpoints/step-*" | sort | tail -1; }
goes_on() { # NAME: makes one more checkpoint than there are
    local before
    before=$(newest "$1")
    for _ in $(seq 3000); do
        [ "$(newest "$1")" = "$before" ] || return
        kill -0 "${pid[$1]}" 2>/dev/null || break
        sleep 0.02
    done
    fail "$1 does not go on: $(tail -3 "$work/$1.err")"
}
stage prepare
ends prepare "0 0"
stage ldm-b
goes_on ldm-b
stage ldm-a
goes_on ldm-a
kill -USR1 "$(cat "$work/ldm-a.pid.1")"
ends ldm-a "75 75"
said ldm-a ".*--resume"
stage ldm-a
goes_on ldm-a
kill -KILL "$(cat "$work/ldm-a.pid.0")"
ends ldm-a "137 6"
stage ldm-a # and is not stopped by what was left
goes_on ldm-a
goes_on ldm-b # which has had more than a second to see it
for s in ldm-a ldm-b; do
    kill -USR1 "$(cat "$work/$s.pid.0")"
    ends $s "75 75"
done
find "$run" -name stopping | grep . && fail "leftovers"

# ---- rank 0 prepares and fails: a film is not there; it alone gets a signal
{
    cat "$SOURCE_DIR/samples/tiny/films.csv"
    tail -1 "$SOURCE_DIR/samples/tiny/films.csv" | sed 's/^[^,]*/virus\/nowhere.jpeg/'
} >"$work/films.csv"
lone() { # NAME SETTING...
    job "$1" train-classifier "$config" --class virus --out "$work/$1.run" "${@:2}" --set parallel.timeout_s=200
}
began=$(date +%s)
lone missing --set data.source="$work/films.csv" --set data.images="$SOURCE_DIR/samples/films"
ends missing "3 3"
said missing ".*nowhere.jpeg"
lone signal --set data.size=1024
until_there "$work/signal.run/prepare/data.partial/images/*.png"
kill -USR1 "$(cat "$work/signal.pid.0")"
ends signal "75 75"
said signal ".*stopped"
[ ! -e "$work/signal.run/prepare/data" ] || fail "the signal came too late"
[ $(($(date +%s) - began)) -lt 150 ] || fail "they ended $(($(date +%s) - began)) s later"

[ $failed = 0 ] && echo "each job came to its own end"
exit $failed
