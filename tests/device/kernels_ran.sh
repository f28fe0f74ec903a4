#!/bin/bash
# kernels_ran.sh - every kernel, variant, type and epilogue in the library $1 is among those that the
# tests named in the remaining files have run; each file has a line for each kernel (HOSTCUDA_KERNELS).
# But for differ_kernel, which decides between libraries (tests/cuda/test_libraries.c).
source "$SOURCE_DIR/tests/shell.sh"
strings -n 6 "$1" | grep -oE '\.entry [A-Za-z0-9_$]+' | cut -d ' ' -f 2 | grep -v differ_kernel |
    sort -u >"$work/all"
sort -u "${@:2}" >"$work/ran"
rm -f "${@:2}" # what ran counts once
[ "$(wc -l <"$work/all")" -gt 300 ] || fail "$(wc -l <"$work/all") kernels found in $1, expected over 300"
while read -r kernel; do fail "no test runs $(c++filt "$kernel")"; done < <(comm -23 "$work/all" "$work/ran")
echo "$(wc -l <"$work/all") kernels"
exit $failed
