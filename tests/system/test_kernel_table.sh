#!/bin/bash
# Every CUDA kernel of the build has a row in bench/LOG.md's table, and a row that is missing is missed.
source "$SOURCE_DIR/tests/shell.sh"
build=$(dirname "$1")
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }
[ -d "$build/CMakeFiles/kernels_cuda.dir" ] || { echo "skipped: built without CUDA"; exit 77; }

python3 "$SOURCE_DIR/bench/resources.py" "$build" || fail "kernels and rows differ"
cp "$SOURCE_DIR/bench/resources.py" "$work" || exit 1
grep -v '^| axpy |' "$SOURCE_DIR/bench/LOG.md" >"$work/LOG.md"
python3 "$work/resources.py" "$build" >"$work/out" && fail "a row is missing, and nothing is said"
grep -q 'no row of axpy' "$work/out" || fail "the row that is missing is not named"
sed -i '/^    "axpy":/d' "$work/resources.py"
python3 "$work/resources.py" "$build" >"$work/out" && fail "a kernel has no row, and nothing is said"
grep -q 'kernel without a row: axpy_kernel' "$work/out" || fail "the kernel without a row is not named"
exit $failed
