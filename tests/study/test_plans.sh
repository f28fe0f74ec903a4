#!/bin/bash
# test_plans.sh - the memory and time that stand in the configs for real sizes are what plans of them say. $1: the program.
set -u
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for config in "$SOURCE_DIR"/configs/{vindr,kermany}-*.ini; do
    EQUIPOISE=$1 "$SOURCE_DIR/configs/plan.sh" "$config" >"$work/said" || { echo "FAILED: no plan of $config" && failed=1; }
    [ "$(grep -c 'GiB' "$work/said")" = 4 ] || { echo "FAILED: $config: $(cat "$work/said")" && failed=1; }
    sed -n '/^; .* all   memory/,/^; 2 x 8/p' "$config" | diff - "$work/said" >"$work/diff" ||
        { echo "FAILED: $config says otherwise than configs/plan.sh:" && cat "$work/diff" && failed=1; }
done
exit $failed
