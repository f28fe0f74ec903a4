#!/bin/bash
# test_devices.sh - the choice of device and precision. Where no GPU is: "auto" runs on the CPU and says
# so in one line, "cuda" ends with exit code 4. $1: the program.
source "$SOURCE_DIR/tests/shell.sh"
program=$1
cd "$work" || exit 1

# film NAME OPTION...: a film of one step; leaves err and code
film() {
    local name=$1
    shift
    "$program" txt2img --model "$SOURCE_DIR/samples/base" --prompt x --size 64 --steps 1 --out "$name" "$@" \
        2>err
    code=$?
}

"$program" devices >out 2>err || fail "devices: exit code $?"
grep -q '^CPU, .* cores, .* GiB memory$' out || fail "devices: no CPU in: $(cat out)"
grep -qE '^(CUDA: |cuda:0: )' out || fail "devices: neither a GPU nor why there is none: $(cat out)"

film refused.png --device cpu --precision bf16
[ $code = 2 ] || fail "bf16 on the CPU: exit code $code, expected 2"
grep -qF 'precision = bf16: the CPU computes in fp32 only' err || fail "bf16 on the CPU: $(cat err)"
film refused.png --device cpu --precision fp16
[ $code = 2 ] || fail "fp16: exit code $code, expected 2"
for device in gpu cuda: cuda:x cuda:-1; do
    film refused.png --device $device
    [ $code = 2 ] || fail "--device $device: exit code $code, expected 2"
done
[ ! -e refused.png ] || fail "a refused run left its film"

if grep -q '^cuda:0: ' out; then
    film refused.png --device cuda:99
    [ $code = 4 ] || fail "cuda:99: exit code $code, expected 4"
else
    film refused.png --device cuda
    [ $code = 4 ] || fail "cuda without a GPU: exit code $code, expected 4"
    [ "$(grep -c 'expected auto or cpu' err)" = 1 ] || fail "cuda without a GPU: $(cat err)"
    film one.png
    [ $code = 0 ] || fail "auto without a GPU: exit code $code"
    [ "$(grep -c 'device: CPU (' err)" = 1 ] || fail "auto without a GPU does not say so: $(cat err)"
    film two.png --device cpu --precision fp32
    cmp -s one.png two.png || fail "auto without a GPU differs from the CPU"
fi
exit $failed
