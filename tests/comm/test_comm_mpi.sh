#!/bin/bash
# test_comm_mpi.sh - every collective on 1 to 4 CPU ranks, started by mpirun; splits; ranks that die, stop or call
# other things than the others. Skipped where MPI is not there.
# shellcheck source=tests/comm/jobs.sh
. "$SOURCE_DIR/tests/comm/jobs.sh"
if ! command -v mpirun >/dev/null || ! ldd "$rank" | grep -q libmpi; then
    echo "SKIPPED: built without MPI, or no mpirun"
    exit 77
fi
export ASAN_OPTIONS=detect_leaks=0 # MPI's own, in modules that are unloaded at the end
h='on host [^ ]+ \(process [0-9]+\)'

# mpi "SCENARIO [NUMBER]" WORLD: leaves code, took; output of all in err.0
mpi() {
    job="$1 on $2"
    began=$(date +%s%N)
    # shellcheck disable=SC2086 # scenario and number
    timeout -s KILL 60 mpirun --oversubscribe -n "$2" "$rank" $1 >"$work/err.0" 2>&1
    code=$?
    ended=$(date +%s%N)
    took=$(((ended - began) / 1000000))
}
says() { # LINE: the only one of ours; mpirun says more
    [ "$(grep -c '^equipoise: ' "$work/err.0")" = 1 ] && grep -qE "^equipoise: $1\$" "$work/err.0" ||
        fail "$job: expected one line of ours: equipoise: $1"
}

for n in 1 2 3 4; do
    mpi collectives $n
    [ $code = 0 ] && [ "$(cat "$work/err.0")" = ok ] || fail "$job: $code"
done
for n in 2 3; do
    mpi split $n
    [ $code = 0 ] && [ "$(cat "$work/err.0")" = ok ] || fail "$job: $code"
done
for scenario in collectives split; do
    "$rank" $scenario >"$work/err.0" 2>&1
    [ "$(cat "$work/err.0")" = ok ] || fail "$scenario alone"
done

# without the limit of 30 s
mpi 'dies 2' 3
within 15000
says "rank 2 $h died while ranks wait in all-reduce \"gradients\""
mpi 'dies 0' 2
within 15000
says "rank 0 $h died while ranks wait in all-reduce \"gradients\""
b='all-reduce "gradients" of (16|20)( bytes)?'
mpi 'length 1' 2
[ $code = 6 ] || fail "$job: $code"
says "rank [01] $h calls $b where rank [01] $h calls $b"
mpi 'agrees 1' 2
[ $code = 3 ] || fail "$job: $code"
says "rank 1 $h: film.png:3: damaged"
mpi 'stops 1' 2
[ $code = 75 ] || fail "$job: $code"
says "rank 1 $h: stopped by a signal"
export LIMIT=5 # ranks have to come within it, too
mpi 'stalls 1' 2
[ $code = 6 ] || fail "$job: $code"
within 25000 # it is 30 s where the limit is not heeded
says "rank 1 $h did not reach all-reduce \"gradients\", in which others have waited for 5 s;.*"
mpi 'midway 1' 2
[ $code = 6 ] || fail "$job: $code"
within 25000
# but for the moment between two of them
says "rank (0 $h: all-reduce \"gradients\" has not ended within 5 s; nothing has been heard of rank 1 $h for [0-9]+ s|1 $h did not reach .*)"
mpi 'absent 1' 2
[ $code = 6 ] || fail "$job: $code"
within 25000 # it would end after 30 s
says "MPI: not all ranks came within 1 s"
exit $failed
