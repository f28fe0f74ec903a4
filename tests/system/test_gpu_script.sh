#!/bin/bash
# bench/gpu.sh on machines that are not there: without a GPU, with programs that are missing, that pass and that fail.
source "$SOURCE_DIR/tests/shell.sh"
fail() { echo "FAILED: $1"; cat "$work/out"; failed=1; }
script="$SOURCE_DIR/bench/gpu.sh"

bash -n "$script" || fail "syntax"
if command -v shellcheck >/dev/null; then shellcheck "$script" >"$work/out" || fail "shellcheck"; fi
if command -v python3 >/dev/null; then
    for f in "$SOURCE_DIR"/bench/peers/*.py; do
        python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$f" || fail "syntax of $f"
    done
fi

# a first folder of PATH whose nvidia-smi says what it is told to
mkdir "$work/bin" "$work/the programs"
export PATH="$work/bin:$PATH"
smi() { printf '#!/bin/bash\n%s\n' "$1" >"$work/bin/nvidia-smi"; chmod +x "$work/bin/nvidia-smi"; }
python=false
run() { env EQ_BUILD="$work/the programs" EQ_OUT="$work/the results" EQ_PYTHON="$python" EQ_SECONDS=60 bash "$script" "$@" >"$work/out" 2>&1; }
program() { printf '#!/bin/bash\n%s\n' "$2" >"$work/the programs/$1"; chmod +x "$work/the programs/$1"; }

smi 'exit 9'
run
[ $? = 4 ] || fail "no GPU: exit code"
[ "$(wc -l <"$work/out")" = 1 ] || fail "no GPU: more than a line"
grep -q 'no NVIDIA GPU here' "$work/out" || fail "no GPU: message"
run --nonsense
[ $? = 2 ] || fail "unknown argument: exit code"

smi 'echo "Some GPU"'
run
[ $? = 3 ] || fail "programs missing: exit code"
grep -q 'test_ops_gpu is missing' "$work/out" || fail "programs missing: message"

for p in equipoise test_sweeps_gpu test_ops_gpu comm_rank; do program $p 'echo fine'; done
program conform_gpu 'exit 77'
program nccl_alone 'echo "not run: no libnccl"; exit 77'
program train_rank 'mkdir -p "$2" && echo "$1" >"$2/steps"'
run || fail "all passes: exit code"
grep -q '^every op,passed' "$work/the results/checks.csv" || fail "a passed check"
grep -q '^words of special instructions,not run' "$work/the results/checks.csv" || fail "a check that is not for this chip"
grep -q '^conv_3 by cuDNN,not run,0,"no libraries"' "$work/the results/checks.csv" || fail "a check without libraries"
grep -q '^NCCL alone,not run' "$work/the results/checks.csv" || fail "a check without NCCL"
for name in collectives "batch statistics" training; do
    grep -q "^$name on several GPUs,not run,0,.one GPU here" "$work/the results/checks.csv" || fail "$name on one GPU"
done
grep -q '^models against PyTorch,not run' "$work/the results/checks.csv" || fail "a check without PyTorch"
[ "$(cat "$work/the results/kernels.csv")" = fine ] || fail "kernels are not measured"

program equipoise '[ "$1 $2 $4" != "bench kernels cuda" ] || [ "$6" = 1 ] || [ "$6" = fp32 ] || [ "$6" = bf16 ] || exit 4'
run
[ $? = 1 ] || fail "kernels that cannot be measured: exit code"
grep -q 'kernels: failed (4)' "$work/out" || fail "kernels that cannot be measured: message"
program equipoise 'echo "libraries: cuBLASLt 13.1.0; no cuDNN: not found"'
program test_ops_gpu 'echo "by $EQ_KERNELS: $*"'
run || fail "with a library: exit code"
grep -q '^after by cuDNN,not run' "$work/the results/checks.csv" || fail "a check of what follows"
grep -q '^linear by cuBLASLt,passed,.*"by cublaslt: 1 linear "' "$work/the results/checks.csv" || fail "a check of a library"
grep -q '^conv_3 by cuDNN,not run,0,"libraries: cuBLASLt 13.1.0; no cuDNN' "$work/the results/checks.csv" || fail "a check of a missing library"
program equipoise 'echo fine'
program test_ops_gpu 'echo fine'

program python 'echo "$*"'
python="$work/the programs/python"
run || fail "with PyTorch: exit code"
grep -q '^models against PyTorch,passed.*check.py --program' "$work/the results/checks.csv" || fail "with PyTorch: models"
grep -q 'kernels.py .*--gate passed' "$work/out" || fail "with PyTorch: kernels"
grep -q 'steps.py .*--gate passed' "$work/out" || fail "with PyTorch: steps"
program python 'case $1 in *steps.py) echo torn >&2; exit 3 ;; esac; echo "$*"'
run
[ $? = 1 ] || fail "steps that cannot be measured: exit code"
grep -q 'steps: failed (3): torn' "$work/out" || fail "steps that cannot be measured: message"
program python 'echo "$*"'
program test_sweeps_gpu 'exit 1'
run && fail "sweeps that fail: exit code"
for rows in kernels steps; do grep -q "$rows.py .*--gate failed" "$work/out" || fail "sweeps that fail: $rows"; done
program test_sweeps_gpu 'echo fine'
python=false

program test_ops_gpu 'echo FAILED: an op; exit 1'
run
[ $? = 1 ] || fail "a failure: exit code"
grep -q '^every op,failed (1)' "$work/the results/checks.csv" || fail "a failed check"

run --bundle "$work/bundle"
[ $? = 3 ] && [ ! -e "$work/bundle" ] || fail "a bundle of programs that would not find its libraries"

# several GPUs
program test_ops_gpu 'echo fine'
smi '[ "$1 $2" = "-i 1,2" ] && printf "Some GPU\nSome GPU\n" || printf "Some GPU\nSome GPU\nSome GPU\n"'
program comm_rank 'echo fine'
CUDA_VISIBLE_DEVICES=1,2 run || fail "two of three GPUs: exit code"
grep -q '^collectives on 2 GPUs,passed' "$work/the results/checks.csv" || fail "two of three GPUs"
program comm_rank 'echo "rank $RANK of $WORLD_SIZE on $GPU: $*" >>"'"$work"'/ranks"'
run || fail "three GPUs: exit code"
[ "$(sort "$work/ranks" | tr '\n' ';')" = "$(for r in 0 1 2; do echo -n "rank $r of 3 on cuda:: collectives;"; done)" ] ||
    fail "three GPUs: $(cat "$work/ranks")"
for name in collectives\ on batch\ statistics\ of training\ on; do
    grep -q "^$name 3 GPUs,passed" "$work/the results/checks.csv" || fail "$name 3 GPUs"
done
program train_rank 'mkdir -p "$2" && echo "$WORLD_SIZE" >"$2/steps"'
run && fail "three GPUs: other weights than one"
grep -q '^training on 3 GPUs,failed (1)' "$work/the results/checks.csv" || fail "three GPUs: other weights"
program comm_rank '[ "$RANK" != 1 ] || exit 6'
run && fail "three GPUs: a rank that fails"
grep -q '^collectives on 3 GPUs,failed (6)' "$work/the results/checks.csv" || fail "three GPUs: a rank that fails"

[ $failed = 0 ] && echo ok
exit $failed
