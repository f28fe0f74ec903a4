#!/bin/bash
# bench: steps of both networks run, one line of JSON each for what runs, the rounds and the memory;
# piped, a round for each line on stdin; steps train (the loss of a repeated batch falls). bench kernels: a row for
# each op and part, with a time and a bound; the rows that are asked for.
source "$SOURCE_DIR/tests/shell.sh"
program=$1
fail() { echo "FAILED: $1"; cat "$work/out" "$work/err"; failed=1; }

bench() { "$program" bench "$@" >"$work/out" 2>"$work/err"; }
rounds() { grep -c '"round":' "$work/out"; }

bench inception --size 75 --batch 2 --width .1 --rounds 2 --steps-per-round 1 || fail "inception"
[ "$(rounds)" = 2 ] || fail "inception: rounds"
head -1 "$work/out" | grep -q '"model":"inception".*"batch":2,"size":75,"parameters":[1-9]' || fail "first line"
tail -1 "$work/out" | grep -q '^{"peak_mib":[1-9]' || fail "last line"

tiny="$SOURCE_DIR/configs/models/tiny"
printf '\n\n\n' | bench unet --model "$tiny" --size 80 --batch 2 --pipe --steps-per-round 4 || fail "unet"
[ "$(rounds)" = 3 ] || fail "unet: rounds"
losses=$(sed -n 's/.*"loss":\([0-9.e+-]*\).*/\1/p' "$work/out")
echo $losses | awk '{exit !($3 < $2 && $2 < $1)}' || fail "losses of the same batch do not fall: $losses"

kernels() { bench kernels --batch 2 --shrink 32 --samples 3 --warm-ms 0 --rotate-mib 0 "$@"; }
kernels --list || fail "the list of kernels"
rows=$(($(wc -l <"$work/out") - 1))
[ "$rows" -gt 100 ] || fail "kernels: $rows rows"
kernels --tflops 1 --tbs .01 || fail "kernels"
[ "$(awk -F, 'NR > 1 && $20 > 0 && $21 <= $20 && $20 <= $22 && $23 > 0 && $27 > 0 && $28 != ""' "$work/out" | wc -l)" = "$rows" ] ||
    fail "kernels: rows without a time and a bound"
kernels --only "conv2d dx" --rotate-mib 1 || fail "kernels of one part"
awk -F, 'NR > 1 && ($2 != "conv2d" || $3 != "dx" || $17 < 4) {exit 1}' "$work/out" || fail "kernels: other rows than wanted, or one set"
printf '3\n0\n' | kernels --pipe || fail "kernels, piped"
[ "$(cut -d, -f1 "$work/out" | tr '\n' ' ')" = "case 3 0 " ] || fail "kernels, piped: rows"
bench unet --forward --model "$tiny" --size 80 --batch 2 --rounds 1 --steps-per-round 1 || fail "unet, forward"

bench kernels --list --only nothing && fail "no row is what --only names"
grep -q 'equipoise: bench: --only is "nothing", expected' "$work/err" || fail "message for --only"
for row in x -1 "" 100000; do
    echo "$row" | kernels --list --pipe && fail "row $row is taken"
    grep -q 'equipoise: bench: standard input: found' "$work/err" || fail "message for row $row"
done

bench sampler --model "$tiny" --size 80 --batch 2 --rounds 1 --steps-per-round 1 --sampling-steps 3 || fail "sampler"
head -1 "$work/out" | grep -q '"model":"sampler".*"parameters":[1-9].*"gflop":[0-9.]*[1-9]' || fail "sampler: first line"

bench resnet && fail "an unknown network is taken"
grep -q 'found resnet, expected unet, inception, sampler or kernels' "$work/err" || fail "message for an unknown network"
others() { # MODEL OPTION...: an option that says nothing of this model
    bench "$@" && fail "$1 takes $2"
    grep -q "^equipoise: bench $1: found ${2%%=*}, expected it with" "$work/err" || fail "message for $1 $2"
}
others unet --width=.5
others unet --only=conv2d
others inception --forward
others inception --model="$tiny"
others sampler --recompute
others kernels --size=128
bench unet --model "$work" && fail "a folder without a model is taken"
grep -q "$work/unet/config.json" "$work/err" || fail "message for a folder without a model"

[ $failed = 0 ] && echo ok
exit $failed
