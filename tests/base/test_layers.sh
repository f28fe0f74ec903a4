#!/bin/bash
# test_layers.sh - the shape of the source tree: includes point downwards only, CUDA headers stay
# in exec, ops and comm, files and lines are short, headers stand alone. Needs SOURCE_DIR in the
# environment. Plants one violation of each rule in a small tree first, to see that it is found.
source "$SOURCE_DIR/tests/shell.sh"
: "${SOURCE_DIR:?is not set}"

declare -A level=([base]=0 [data]=1 [config]=1 [weights]=1 [graph]=2 [ops]=3 [exec]=3 [comm]=3
    [models]=4 [train]=5 [sample]=5 [stats]=5 [report]=5 [study]=6 [app]=7)
most_lines=500
most_columns=120 # of code 100; tables of documents may be wider
cuda='cuda|cublas|cudnn|curand|nccl|nvtx|device_types|mma\.h' # how names of its headers start

# "file:line:target" of every include of the kind that $1 opens: '"' or '<'
includes() {
    grep -rnoE --include='*.[ch]' --include='*.cu' --include='*.cuh' \
        "^[[:space:]]*#[[:space:]]*include[[:space:]]*[$1][^\">]+" "${@:2}" 2>/dev/null |
        sed -E 's/^([^:]+:[0-9]+:).*["<]/\1/'
}

# One quoted include of the room `from` ("kernels" and "include" are rooms too).
check_include() {
    local at=$1 from=$2 target=$3 to=${3%%/*}
    if [[ $target != */* ]]; then # beside it, or of include/
        [ -f "include/$target" ] || [[ $from == kernels && -f ${at%/*}/$target ]] ||
            echo "$at includes \"$target\", expected \"room/file.h\" or a file of include/"
    elif [ ! -f "host/$target" ]; then
        echo "$at includes \"$target\", which host/ does not hold"
    elif [ -z "${level[$to]:-}" ]; then
        echo "$at includes \"$target\" of a room without a level"
    elif [[ $from == kernels || $from == include ]]; then
        [ "$to" = base ] || echo "$at includes \"$target\": $from knows base only"
    elif [ "${level[$to]}" -gt "${level[$from]}" ]; then
        echo "$at includes \"$target\": $to lies above $from"
    fi
}

check_includes() {
    local file line target from
    for room in host/*/; do
        room=$(basename "$room")
        [ -n "${level[$room]:-}" ] || echo "host/$room: has no level in test_layers.sh"
    done
    while IFS=: read -r file line target; do
        from=${file#host/}
        from=${from%%/*}
        check_include "$file:$line" "$from" "$target"
    done < <(includes '"' host kernels include)
}

check_cuda() {
    local file line target
    while IFS=: read -r file line target; do
        case $file in host/exec/* | host/ops/* | host/comm/*) continue ;; esac
        echo "$file:$line includes <$target>: CUDA stays in exec, ops and comm"
    done < <(includes '"<' host include | grep -E ":[0-9]+:(.*/)?($cuda)")
}

check_lengths() {
    find host kernels include tests -name '*.[ch]' -exec wc -l {} + 2>/dev/null |
        awk -v most=$most_lines '$2 != "total" && $1 > most {
            print $2 ": has " $1 " lines, at most " most }'
}

check_columns() {
    find host kernels include tests docs bench samples *.md \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \
        -o -name '*.cpp' -o -name '*.md' \) -type f -exec awk -v most=$most_columns '
        { limit = FILENAME ~ /\.(h|md)$/ || /^ *(\/\*|\*|\/\/)/ ? most : 100 }
        length > limit && !(FILENAME ~ /md$/ && /^\|/) {
            print FILENAME ":" FNR ": has " length " columns, at most " limit }' {} + 2>/dev/null
}

check_headers() {
    local header said
    find host include -name '*.h' | sort | while read -r header; do
        said=$(gcc -fsyntax-only -std=c17 -D_GNU_SOURCE -Ihost -Iinclude -x c "$header" 2>&1) ||
            echo "$header: does not compile alone: $(grep -m1 error <<<"$said")"
    done
}

# Everything that is wrong in the tree at $1, one line each.
check_tree() (
    cd "$1" || exit
    check_includes
    check_cuda
    check_lengths
    check_columns
    check_headers
)

plant() { # plant FILE TEXT: in a fresh small tree that keeps the rules otherwise
    rm -rf "$tree"
    mkdir -p "$tree"/{include,kernels/cpu,tests/base,host/{base,graph,models,train,app,exec}}
    echo '#include <stddef.h>' >"$tree/host/base/status.h"
    echo '#include "base/status.h"' | tee "$tree/include/kernels.h" >"$tree/host/graph/graph.h"
    printf '#include "cpu.h"\n#include "kernels.h"\n' >"$tree/kernels/cpu/x.c"
    touch "$tree/kernels/cpu/cpu.h"
    printf '#include "graph/graph.h"\n#include "kernels.h"\n' >"$tree/host/exec/exec.h"
    printf '#include "exec/exec.h"\n#include <cuda_runtime_none.h>\n' >"$tree/host/exec/x.c"
    mkdir -p "$(dirname "$tree/$1")"
    printf '%b' "$2" >"$tree/$1"
}

finds() { # finds TEXT: the planted violation and nothing else
    local found
    found=$(check_tree "$tree")
    if [ "$(wc -l <<<"$found")" -ne 1 ] || ! grep -qF "$1" <<<"$found"; then
        echo "FAIL: expected to find \"$1\", found: $found"
        failed=1
    fi
}

tree=$work
plant host/base/y.c ''
found=$(check_tree "$tree")
[ -z "$found" ] || { echo "FAIL: a clean tree gave: $found"; failed=1; }
plant host/graph/y.c '\n#include "exec/exec.h"\n'
finds 'host/graph/y.c:2 includes "exec/exec.h": exec lies above graph'
plant host/base/y.h '  #  include "graph/graph.h"\n' && finds 'graph lies above base'
plant host/train/y.c '#include "graph.h"\n' && finds 'expected "room/file.h"'
plant host/train/y.c '#include "train/none.h"\n' && finds 'which host/ does not hold'
plant host/extra/y.c '' && finds 'host/extra: has no level'
plant kernels/cpu/y.c '#include "graph/graph.h"\n' && finds 'kernels knows base only'
plant host/models/y.c '#include <cuda_runtime.h>\n' && finds 'CUDA stays in'
plant host/train/y.c '#include <nccl.h>\n' && finds 'CUDA stays in'
plant tests/base/y.c "$(yes 'int x;\n' | head -501 | tr -d '\n')"
finds 'has 501 lines, at most 500'
wide=$(printf '%0110d' 0)
plant host/base/y.c "/* $wide */\n// $wide\nint n; // $wide\n" && finds 'host/base/y.c:3: has 120 columns, at most 100'
plant docs/y.md "| $wide$wide |\n$wide$wide\n" && finds 'docs/y.md:2: has 220 columns, at most 120'
plant host/base/y.h 'size_t n;\n' && finds 'host/base/y.h: does not compile alone'

found=$(check_tree "$SOURCE_DIR")
[ -z "$found" ] || { echo "$found"; failed=1; }
exit $failed
