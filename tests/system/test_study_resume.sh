#!/bin/bash
# test_study_resume.sh - a study that is killed at 20 random moments and started again reaches the
# same metrics.json, to the byte. $1: the program. Prints the seed of its moments; EQ_TEST_SEED repeats them.
source "$SOURCE_DIR/tests/shell.sh"
program=$1
kills=20
config=$SOURCE_DIR/configs/tiny.ini

study() { "$program" study "$config" --run "$1" --resume "${@:2}"; }

now() { date +%s%N; }

# ---- the run that nobody disturbs
start=$(now)
study "$work/whole" >"$work/whole.out" 2>"$work/whole.err" || {
    cat "$work/whole.err"
    fail "an undisturbed study"
    exit 1
}
took=$((($(now) - start) / 1000000))
load=$(awk -v cores="$(nproc)" '{ l = $1 / cores; print int(100 * (l > 1 ? l : 1)) }' /proc/loadavg)
echo "undisturbed: $took ms, load of the machine $load %"
[ "$took" -lt $((300 * load)) ] || fail "a study took $took ms, expected less than 30 s times the load"
grep -q "p Holm" "$work/whole.out" || fail "no table on stdout"
for file in config.ini metrics.json report.html log.jsonl synthetic/manifest.csv; do
    [ -s "$work/whole/$file" ] || fail "no $file"
done
[ ! -e "$work/whole/lock" ] || fail "the lock was left behind"
grep -q "$work\|$SOURCE_DIR" "$work/whole/metrics.json" && fail "a path in metrics.json"

# ---- killed, again and again; moments spread over the whole run: each start gets a part of the work done
RANDOM=${EQ_TEST_SEED:-$$}
echo "seed: ${EQ_TEST_SEED:-$$}"
n=0 starts=0
while [ $n -lt $kills ]; do
    starts=$((starts + 1))
    [ $starts -le 200 ] || {
        fail "200 starts did not suffice for $kills kills"
        break
    }
    "$program" study "$config" --run "$work/killed" --resume >"$work/out" 2>"$work/err" &
    pid=$!
    delay=$((took * 3 / kills * (RANDOM % 1000) / 1000 + 20))
    sleep "$(printf '%d.%03d' $((delay / 1000)) $((delay % 1000)))"
    if kill -9 $pid 2>/dev/null; then
        n=$((n + 1))
        wait $pid 2>/dev/null
    else
        wait $pid
        rc=$?
        [ $rc = 0 ] || {
            fail "start $starts ended with $rc: $(tail -1 "$work/err")"
            break
        }
        # It came to its end between two kills: what was made must agree; then once more from nothing.
        cmp -s "$work/whole/metrics.json" "$work/killed/metrics.json" || fail "after $n kills: other metrics.json"
        echo "complete after $n kills, starting anew"
        rm -rf "$work/killed"
    fi
done
study "$work/killed" >"$work/out" 2>"$work/err" || fail "the last start: $(tail -1 "$work/err")"
cmp "$work/whole/metrics.json" "$work/killed/metrics.json" || fail "other metrics.json after $n kills"
(cd "$work/whole" && find synthetic stages -name '*.png' -o -name '*.csv' -o -name 'model.safetensors' | sort |
    xargs sha256sum) >"$work/a"
(cd "$work/killed" && find synthetic stages -name '*.png' -o -name '*.csv' -o -name 'model.safetensors' | sort |
    xargs sha256sum) >"$work/b"
cmp "$work/a" "$work/b" || fail "other films, predictions or weights"
find "$work/killed" -name '*.tmp-*' -o -name '*.partial' | grep . && fail "half-written files were left"

# ---- negative control: another seed gives other numbers
study "$work/other" --set study.seed=6 >"$work/out" 2>"$work/err" || fail "another seed: $(tail -1 "$work/err")"
cmp -s "$work/whole/metrics.json" "$work/other/metrics.json" && fail "another seed, the same metrics.json"

# ---- a finished run: nothing is made again
again=$took
for _ in 1 2 3; do # the least of three: the machine may be busy with other things
    start=$(now)
    study "$work/whole" >"$work/out" 2>"$work/err" || fail "a finished run: $(tail -1 "$work/err")"
    ms=$((($(now) - start) / 1000000))
    [ $ms -ge $again ] || again=$ms
done
[ $again -lt $((took / 2)) ] || fail "a finished run took $again ms again"
cmp -s "$work/out" "$work/whole.out" || fail "a finished run prints another table"

# ---- refusals: one line, exit 2, naming what is wrong
refused() { # what, pattern, command...
    "${@:3}" >"$work/out" 2>"$work/err"
    local rc=$?
    [ $rc = 2 ] || fail "$1: exit $rc, expected 2"
    grep -q "$2" "$work/err" || fail "$1: $(cat "$work/err")"
}
refused "no --resume" "not empty" "$program" study "$config" --run "$work/whole"
refused "other settings" "ldm.steps = 31, was 24" "$program" study "$config" --run "$work/whole" --resume \
    --set ldm.steps=31
mkdir "$work/foreign" && echo hello >"$work/foreign/letter.txt"
refused "a foreign folder" "config.ini" "$program" study "$config" --run "$work/foreign" --resume
[ "$(ls "$work/foreign")" = letter.txt ] || fail "something was written into a foreign folder"

# ---- one process at a time; and a signal stops a study with 75, to be continued. With two threads this time.
study "$work/wide" --set study.threads=2 >"$work/out" 2>"$work/err" || fail "two threads: $(tail -1 "$work/err")"
"$program" study "$config" --run "$work/two" --set study.threads=2 >"$work/two.out" 2>"$work/two.err" &
pid=$!
for _ in $(seq 1000); do
    [ -s "$work/two/stages/baseline-a/stage.json" ] && break
    sleep 0.02
done
kill -STOP $pid # it stays there
refused "a second process" "process $pid" "$program" study "$config" --run "$work/two" --resume --set study.threads=2
kill -TERM $pid
kill -CONT $pid
wait $pid
rc=$?
[ $rc = 75 ] || fail "a stopped study: exit $rc, expected 75"
grep -q -- "--resume" "$work/two.err" || fail "a stopped study: $(tail -1 "$work/two.err")"
study "$work/two" --set study.threads=2 >"$work/out" 2>"$work/err" || fail "after a stop: $(tail -1 "$work/err")"
cmp "$work/wide/metrics.json" "$work/two/metrics.json" || fail "other metrics.json after a stop"

[ $failed = 0 ] && echo "$n kills, $starts starts: the same bytes"
exit $failed
