# shellcheck shell=bash disable=SC2034,SC2154 # variables of the scripts beside it
# jobs.sh - for the scripts beside it: starts the ranks of comm_rank and compares what they say.
source "$SOURCE_DIR/tests/shell.sh"
rank=$(dirname "$1")/comm_rank
export OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT LIMIT "${!SLURM_@}" "${!OMPI_COMM_@}"
unset "${!PMIX_@}" "${!TORCHELASTIC_@}"

fail() {
    echo "FAILED: $*"
    sed 's/^/    /' "$work"/err.* "$work"/out.* 2>/dev/null
    failed=1
}

new_port() { port=$((20000 + (RANDOM * 32768 + RANDOM) % 10000)); }

# ranks "SCENARIO [NUMBER]" WORLD FIRST LAST: starts these ranks of a world, as a user does by hand.
ranks() {
    local r
    rm -f "$work"/err.* "$work"/out.*
    began=$(date +%s%N)
    for ((r = $3; r <= $4; r++)); do
        # shellcheck disable=SC2086 # scenario and number
        RANK=$r WORLD_SIZE=$2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
            timeout -s KILL 60 "$rank" $1 >"$work/out.$r" 2>"$work/err.$r" &
        pid[r]=$!
    done
}

# ended CODE...: waits for ranks 0.. and compares their exit codes; "-" is not waited for.
ended() {
    local r=0 code want
    for want in "$@"; do
        if [ "$want" != - ]; then
            wait "${pid[r]}"
            code=$?
            [ $code = "$want" ] || fail "$job: rank $r ended with $code, expected $want"
        fi
        r=$((r + 1))
    done 2>/dev/null
    ended=$(date +%s%N)
    took=$(((ended - began) / 1000000))
}

# within MS: how long the job took, or went on after a rank died.
within() {
    local death
    death=$(cat "$work"/out.* "$work"/err.* 2>/dev/null | sed -n 's/^died at //p')
    [ -z "$death" ] || took=$((ended / 1000000 - death))
    [ $took -le "$1" ] || fail "$job: took $took ms, expected $1 at most"
}

# said PATTERN: one line on standard error of all ranks together, and this one.
said() {
    local lines
    lines=$(cat "$work"/err.*)
    [ "$(grep -c . <<<"$lines")" = 1 ] && grep -qE "^equipoise: $1\$" <<<"$lines" ||
        fail "$job: expected one line: equipoise: $1"
}
