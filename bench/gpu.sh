#!/bin/bash
# gpu.sh - one visit to a machine with an NVIDIA GPU: first whether everything is right on it, then how fast.
#
#   bench/gpu.sh                      builds, then checks and measures in ten minutes, on the GPUs of CUDA_VISIBLE_DEVICES or all
#   EQ_BUILD=DIR bench/gpu.sh         with programs that were built elsewhere, as by --bundle
#   bench/gpu.sh --bundle DIR         no GPU needed: builds, and puts programs and their libraries in DIR (EQ_BUILD: of that build)
#
# EQ_SECONDS=600  EQ_OUT=bench/results/<gpu>  EQ_PYTHON=python3  EQ_BENCH=0: only the checks
# EQ_LONG=1: large batches, PyTorch compiled and tuned, rows of cuBLASLt and cuDNN; wants EQ_SECONDS=3600.
# EQ_AUTOTUNE=on: our steps with the kernels that are fastest here.
# Exit codes: 0 all checks passed; 1 one failed, or a measurement; 2 usage; 3 a program cannot start; 4 no GPU. Nothing is set on the card.
set -u
cd "$(dirname "$0")/.." || exit 3
start=$SECONDS
limit=${EQ_SECONDS:-600}
python=${EQ_PYTHON:-python3}
programs="equipoise conform_gpu test_sweeps_gpu test_ops_gpu nccl_alone comm_rank train_rank"
say() { echo "gpu.sh: $*"; }
left() { echo $((limit - (SECONDS - start))); }
# share PERCENT: seconds of the whole time, but no more than are left
share() {
    local s=$((limit * $1 / 100)) most
    most=$(left)
    [ "$s" -gt "$most" ] && s=$most
    [ "$s" -lt 1 ] && s=1
    echo "$s"
}

build_here() {
    build="build-gpu"
    .ci/setup >&2 || say "packages are missing, which the build may need"
    # programs look for libraries in lib/ beside them first: see bundle()
    { cmake -S . -B "$build" -DEQ_CUDA=ON "-DCMAKE_BUILD_RPATH=\$ORIGIN/lib" -DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags &&
        cmake --build "$build" --target gpu -j "$(nproc)"; } >"$build.log" 2>&1 ||
        { say "the build failed, see $build.log: $(grep -m1 -i error "$build.log")"; exit 3; }
    start=$SECONDS # the time is that of checks and measurements
}

bundle() {
    if [ -n "${EQ_BUILD:-}" ]; then build=$EQ_BUILD; else build_here; fi
    # shellcheck disable=SC2016 # the loader's word
    if command -v readelf >/dev/null && ! readelf -d "$build/equipoise" | grep -q '(RPATH).*\$ORIGIN/lib'; then
        say "$build: its programs and their libraries do not look in lib/ beside them: configure as build_here() in gpu.sh does"
        exit 3
    fi
    mkdir -p "$1/lib" || exit 3
    local p lib
    for p in $programs; do cp "$build/$p" "$1/" || exit 3; done
    # all but the loader and the C library, which belong to a machine
    for lib in $(for p in $programs; do ldd "$build/$p"; done | awk '$3 ~ /^\// {print $3}' | sort -u); do
        case $(basename "$lib") in
        libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | ld-linux*) ;;
        *) cp -L "$lib" "$1/lib/" || exit 3 ;;
        esac
    done
    say "$1 holds $programs and $(find "$1/lib" -type f | wc -l) libraries; needs $(ldd --version | head -1) or newer"
}

if [ "${1:-}" = --bundle ]; then
    [ $# = 2 ] || { say "--bundle: expected a folder"; exit 2; }
    bundle "$2"
    exit 0
fi
[ $# = 0 ] || { say "found $1, expected --bundle DIR or nothing"; exit 2; }

# ---- is there a GPU? -------------------------------------------------------------------------------
seen=()
[ -n "${CUDA_VISIBLE_DEVICES:-}" ] && seen=(-i "$CUDA_VISIBLE_DEVICES")
smi() { nvidia-smi ${seen[@]+"${seen[@]}"} "$@"; }
names=$(smi --query-gpu=name --format=csv,noheader 2>/dev/null) || names=
if [ -z "$names" ]; then # it does not take all that CUDA takes
    seen=()
    names=$(smi --query-gpu=name --format=csv,noheader 2>/dev/null) || names=
fi
if [ -z "$names" ]; then
    say "no NVIDIA GPU here: nothing was checked or measured"
    exit 4
fi
gpu=$(head -1 <<<"$names" | tr '[:upper:] ' '[:lower:]-' | tr -cd 'a-z0-9-')
out=${EQ_OUT:-bench/results/$gpu}
mkdir -p "$out" || exit 3

# ---- programs --------------------------------------------------------------------------------------
if [ -n "${EQ_BUILD:-}" ]; then
    build=$EQ_BUILD
else
    build_here
fi
broken=0
for p in $programs; do
    [ -x "$build/$p" ] || { say "$build/$p is missing"; broken=1; continue; }
    lacks=$(ldd "$build/$p" 2>&1 | grep -E 'not found' | sed 's/^[[:space:]]*//' | sort -u | tr '\n' ';')
    [ -n "$lacks" ] && { say "$p lacks: $lacks"; broken=1; }
done
[ $broken = 0 ] || exit 3
torch=$("$python" -c 'import torch; torch.zeros(1, device="cuda"); print(torch.__version__)' 2>/dev/null) || torch=
{
    echo "$names" | sort | uniq -c
    smi --query-gpu=driver_version,memory.total,clocks.max.sm,power.limit --format=csv
    "$build/equipoise" devices
    echo "PyTorch: ${torch:-none that sees the GPU}"
    date -u +%Y-%m-%d
} >"$out/machine.txt" 2>&1
cat "$out/machine.txt"

# ---- is it right? ----------------------------------------------------------------------------------
failures=0
results="$out/checks.csv"
echo "check,result,seconds,last line" >"$results"
# check NAME PERCENT COMMAND...: a failure is 1, but for 77 (not for this chip) and the end of its time
check() {
    local name=$1 seconds log code began=$SECONDS result=passed
    seconds=$(share "$2")
    shift 2
    log="$out/$(tr ' ' '-' <<<"$name").log"
    timeout "$seconds" "$@" >"$log" 2>&1
    code=$?
    case $code in
    0) ;;
    77) result="not run" ;;
    124) result="out of time"; failures=$((failures + 1)) ;;
    *) result="failed ($code)"; failures=$((failures + 1)) ;;
    esac
    printf '%s,%s,%d,"%s"\n' "$name" "$result" $((SECONDS - began)) "$(tail -1 "$log" | tr '"\n' "' " | cut -c1-160)" >>"$results"
    say "$name: $result"
    [ "$result" = passed ] || [ "$result" = "not run" ] || grep -m5 -E 'FAILED|error|equipoise:' "$log"
    [ "$result" = passed ]
}
skip() {
    echo "$1,not run,0,\"$2\"" >>"$results"
    say "$1: not run: $2"
}
gate=passed
models=passed
check "words of special instructions" 5 "$build/conform_gpu"
check "parameter sweeps" 5 "$build/test_sweeps_gpu" || { gate=failed; models=failed; } # kernels of training
check "every op" 25 "$build/test_ops_gpu" 1 || gate=failed
# the vendor's libraries, where they are: the same ops by them
while read -r library cases; do
    if grep -q "^libraries: .*$library [0-9]" "$out/machine.txt"; then
        check "$cases by $library" 6 env EQ_KERNELS="$(tr '[:upper:]' '[:lower:]' <<<"$library")" "$build/test_ops_gpu" 1 "$cases" || gate=failed
    else
        skip "$cases by $library" "$(grep -m1 '^libraries:' "$out/machine.txt" || echo no libraries)"
    fi
done <<<"cuBLASLt linear
cuDNN conv_3
cuDNN conv_d
cuDNN after"
# ranks: NCCL alone, and between as many GPUs as are here, 8 at most
gpus=$(wc -l <<<"$names")
[ "$gpus" -gt 8 ] && gpus=8
# together N COMMAND...: N ranks of it; the exit code of the last that failed, 0 if none did
together() {
    local n=$1 r p worst=0 pids=()
    local port=$((20000 + RANDOM % 10000))
    shift
    for ((r = 0; r < n; r++)); do
        RANK=$r WORLD_SIZE=$n LOCAL_RANK=$r LOCAL_WORLD_SIZE=$n MASTER_ADDR=127.0.0.1 MASTER_PORT=$port GPU=cuda: "$@" &
        pids+=($!)
    done
    for p in "${pids[@]}"; do wait "$p" || worst=$?; done
    return $worst
}
# steps of one GPU and of all, with state in shards: the same parameters to the bit
steps() {
    local one="$out/steps-one" all="$out/steps-all"
    mkdir -p "$one" "$all"
    together 1 "$build/train_rank" steps "$one" study.device=cuda ldm.accumulate=$((2 * $1)) &&
        together "$1" "$build/train_rank" steps "$all" study.device=cuda ldm.accumulate=$((2 * $1)) parallel.zero=1 &&
        cmp "$one/steps" "$all/steps" && echo "the same bits on 1 and $1 GPUs"
}
export -f together steps
export build out gpus
check "NCCL alone" 3 "$build/nccl_alone"
# shellcheck disable=SC2016 # what is exported expands in the shell that runs it
if [ "$gpus" -gt 1 ]; then
    check "collectives on $gpus GPUs" 5 bash -c 'together "$gpus" "$build/comm_rank" collectives'
    check "batch statistics of $gpus GPUs" 3 bash -c 'together "$gpus" "$build/train_rank" statistics "$out" study.device=cuda'
    check "training on $gpus GPUs" 5 bash -c 'steps "$gpus"'
else
    for name in "collectives" "batch statistics" "training"; do skip "$name on several GPUs" "one GPU here"; done
fi
# true shapes, each node against the CPU
for precision in fp32 bf16; do
    check "true shapes $precision" 12 env EQ_COMPARE=1 "$build/equipoise" bench kernels --device cuda --precision $precision \
        --batch 1 --samples 1 --warm-ms 0 --rotate-mib 0 || gate=failed
done
if [ -n "$torch" ]; then
    check "models against PyTorch" 20 "$python" bench/peers/check.py --program "$build/equipoise" --out "$out/models.csv" || models=failed
else
    models="not run"
    skip "models against PyTorch" "no $python with a torch that sees the GPU"
fi
say "checks: $failures failed, $(left) s left"

# ---- how fast? -------------------------------------------------------------------------------------
# measured NAME CODE LOG: 124 is the end of its time, which is none of a failure
measured() {
    [ "$2" = 0 ] && return
    say "$1: $([ "$2" = 124 ] && echo "out of time" || echo "failed ($2)"): $(tail -1 "$3")"
    [ "$2" = 124 ] || failures=$((failures + 1))
}
if [ "${EQ_BENCH:-1}" = 0 ]; then
    say "measurements: not run: EQ_BENCH=0"
elif [ -z "$torch" ]; then
    timeout "$(share 100)" "$build/equipoise" bench kernels --device cuda --batch 8 >"$out/kernels.csv"
    measured kernels $? "$out/kernels.csv"
    say "kernels: no PyTorch to compare with; models: not run; $(wc -l <"$out/kernels.csv") lines in $out/kernels.csv"
else
    long=()
    libraries=()
    [ "${EQ_LONG:-0}" = 1 ] && long=(--long) && libraries=(--libraries)
    half=$(($(left) * 2 / 5))
    timeout $((half + 60)) "$python" bench/peers/kernels.py --program "$build/equipoise" --seconds "$half" --gate "$gate" --compile \
        ${libraries[@]+"${libraries[@]}"} --out "$out/kernels.csv" 2>"$out/kernels.log"
    measured kernels $? "$out/kernels.log"
    rest=$(share 100)
    timeout $((rest + 30)) "$python" bench/peers/steps.py --program "$build/equipoise" --seconds "$rest" --gate "$models" ${long[@]+"${long[@]}"} \
        --out "$out/steps.csv" 2>"$out/steps.log"
    measured steps $? "$out/steps.log"
fi
say "results in $out after $((SECONDS - start)) s"
[ $failures = 0 ]
