#!/bin/bash
# test_plans.sh - the memory and time that stand in the configs for real sizes are what plans of them say. $1: the program.
source "$SOURCE_DIR/tests/shell.sh"
for config in "$SOURCE_DIR"/configs/{vindr,kermany}-*.ini; do
    EQUIPOISE=$1 "$SOURCE_DIR/configs/plan.sh" "$config" >"$work/said" || fail "no plan of $config"
    [ "$(grep -c 'GiB' "$work/said")" = 4 ] || fail "$config: $(cat "$work/said")"
    sed -n '/^; .* all   memory/,/^; 2 x 8/p' "$config" | diff - "$work/said" >"$work/diff" ||
        fail "$config says otherwise than configs/plan.sh: $(cat "$work/diff")"
done
exit $failed
