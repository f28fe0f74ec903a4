#!/bin/bash
# test_comm_store.sh - ranks that meet through the store of rank 0, without MPI: collectives of hosts, and every
# way in which a rank can fail the others. Each ends in time, with one line that names the rank.
# shellcheck source=tests/comm/jobs.sh
. "$SOURCE_DIR/tests/comm/jobs.sh"
h='on host [^ ]+ \(process [0-9]+\)' # after a rank's number

# job "SCENARIO [NUMBER]" WORLD CODES MS [LINE]
job() {
    job=$1
    new_port
    ranks "$1" "$2" 0 $(($2 - 1))
    # shellcheck disable=SC2086 # a list
    ended $3
    within "$4"
    if [ $# -gt 4 ]; then said "$5"; elif [ -s "$work/err.0" ]; then fail "$job: says something"; fi
}

# hold WORLD: ranks that take steps until let_go CODE...; returns when they do.
export HOLD=$work/hold
hold() {
    touch "$HOLD"
    ranks holds "$1" 0 $(($1 - 1))
    for ((i = 0; i < 200; i++)); do
        [ -s "$work/out.0" ] && break
        sleep 0.05
    done
}
let_go() {
    rm "$HOLD"
    ended "$@"
    [ -s "$work/err.0" ] && fail "$job: says something"
}

for n in 1 2 3 4; do
    job hosts $n "$(yes 0 | head -$n | tr '\n' ' ')" 20000
    [ "$(cat "$work"/out.*)" = ok ] || fail "hosts on $n"
done

# The limit is 30 s: these must not need it.
job 'dies 3' 4 '6 6 6 137' 15000 "rank 3 $h died while ranks wait in barrier \"gradients\""
job 'dies 0' 4 '137 6 6 6' 15000 "rank 0 $h died while ranks wait in barrier \"gradients\""
job 'dies_alone 1' 3 '6 137 6' 15000 "rank 1 $h died; the last call that it reached is barrier \"start\""
job 'dies_agreeing 1' 2 '6 137' 15000 "rank 1 $h died while ranks wait in agreement \"the classifier\""
job 'exits 1' 2 '6 0' 15000 "rank 1 $h died while ranks wait in barrier \"gradients\""
job 'fails 2' 3 '6 6 3' 15000 "rank 2 $h: film.png:3: damaged"
for r in 0 1; do
    job "fails_at_once $r" 2 "$([ $r = 0 ] && echo 5 6 || echo 6 5)" 15000 "rank $r $h: no memory"
done
job 'agrees 1' 3 '3 3 3' 15000 "rank 1 $h: film.png:3: damaged"
job 'stops 1' 3 '75 75 75' 15000 "rank 1 $h: stopped by a signal"
b='barrier "(gradients|norm)" of 0( bytes)?'
job 'name 1' 3 '6 6 6' 15000 "rank [0-2] $h calls $b where rank [0-2] $h calls $b"
b='broadcast on hosts "weights" of 5( bytes)?( from 1)?'
job 'root 2' 3 '6 6 6' 15000 "rank [0-2] $h calls $b where rank [0-2] $h calls $b"
b='(broadcast|gather) on hosts "weights" of 5( bytes)?'
job 'kind 0' 3 '6 6 6' 15000 "rank [0-2] $h calls $b where rank [0-2] $h calls $b"
b='(end "of the job"|barrier "gradients") of 0( bytes)?'
job 'ends_early 1' 2 '6 6' 15000 "rank [01] $h calls $b where rank [01] $h calls $b"
job 'length 1' 2 '2 2' 15000 '2 CPU ranks.*expected.*'

# A rank that is stopped: the others end when the limit is over, also where it is rank 0.
export LIMIT=3 # ranks have to come within it, too
for r in 0 2; do
    job="stalls $r"
    new_port
    ranks "$job" 3 0 2
    [ $r = 0 ] && ended - 6 6 || ended 6 6 -
    within 25000 # it is 30 s where the limit is not heeded
    [ $r = 0 ] && said "rank 0 $h has not been heard of .* while ranks wait in barrier \"gradients\"" ||
        said "rank 2 $h did not reach barrier \"gradients\", in which others have waited for 3 s;.* nothing.*"
    kill -KILL "$(cat "$work/out.$r")"
    wait 2>/dev/null
done
# All are stopped, longer than the limit, and continued: nothing has happened.
job='stopped and continued'
new_port
hold 3
children=$(for r in 0 1 2; do cat "/proc/${pid[r]}/task/${pid[r]}/children"; done)
# shellcheck disable=SC2086 # a list
kill -STOP $children && sleep 4 && kill -CONT $children
sleep 0.3
let_go 0 0 0

# Ranks that do not come are named by their numbers, rank 0 by its address.
job='missing'
new_port
ranks hosts 4 0 1
ended 6 6
said '2 of 4 ranks did not come within 3 s: rank 2 and rank 3'
ranks hosts 3 1 2
pid=("" "${pid[1]}" "${pid[2]}")
ended - 6 6
said "rank 0 was not found at 127.0.0.1, port $port, within 3 s: Connection refused"
unset LIMIT

# What happens around a job that is under way does not disturb it.
job='disturbed'
new_port
hold 2
# Strangers on the port: bytes of all kinds, half a greeting, a connection that says nothing.
exec 9<>"/dev/tcp/127.0.0.1/$port"
for i in 1 2 3; do
    { head -c 100000 /dev/urandom >"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null
    { printf 'GET / HTTP/1.0\r\n\r\n' >"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null
    { printf 'EQRANKS1%0300d' 0 >"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null
done
# A rank that is there already.
RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port "$rank" holds >"$work/twice" 2>&1
[ $? = 6 ] && grep -qE "^equipoise: rank 1 $h: there is one already, rank 1 $h\$" "$work/twice" ||
    fail "rank 1 twice: $(cat "$work/twice")"
# A job that is given the same port.
RANK=0 WORLD_SIZE=2 MASTER_PORT=$port "$rank" holds >"$work/twice" 2>&1
[ $? = 2 ] && grep -q "^equipoise: port $port, .*: Address already in use, set another MASTER_PORT" "$work/twice" ||
    fail "port in use: $(cat "$work/twice")"
let_go 0 0
exec 9>&-

# Ranks that count differently end at once.
job='another world'
new_port
ranks holds 3 0 0
RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port timeout 20 "$rank" holds 2>"$work/other"
ended 6
said "rank 1 $h says that there are 2 ranks, rank 0 says 3"

# whoever inherits a process may not ask how it ended
alive() { [ -d "/proc/$(cat "$1")" ] && ! grep -q '^State:.*Z' "/proc/$(cat "$1")/status"; }
# What started the ranks is killed: they stop as by a signal, or, where they do not, are ended after the limit.
orphans() { # SCENARIO LINE
    job="$1, its launcher killed"
    rm -f "$work"/err.* "$work"/out.* "$work"/pid.*
    new_port
    # shellcheck disable=SC2016 # of the inner shell
    SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_TASKS_PER_NODE=2 SLURM_NTASKS=2 SLURM_NODEID=0 MASTER_PORT=$port bash -c '
        for r in 0 1; do
            SLURM_PROCID=$r SLURM_LOCALID=$r "$1" "$2" >"$3/out.$r" 2>"$3/err.$r" &
            echo $! >"$3/pid.$r"
        done
        wait' launcher "$rank" "$1" "$work" &
    local launcher=$! i
    for ((i = 0; i < 600; i++)); do
        [ -s "$work/out.0" ] && [ -s "$work/out.1" ] && break
        sleep 0.05
    done
    kill -KILL $launcher
    wait $launcher 2>/dev/null
    for ((i = 0; i < 600; i++)); do
        alive "$work/pid.0" || alive "$work/pid.1" || break
        sleep 0.05
    done 2>/dev/null
    [ $i -lt 300 ] || fail "$job: ranks are left after 15 s"
    said "$2"
}
export LIMIT=30
orphans goes_on "(rank [01] $h: )?stopped by a signal"
touch "$HOLD"
LIMIT=3 orphans holds "what started the ranks on this host is gone, and they do not stop"
rm "$HOLD"
exit $failed
