#!/usr/bin/env bash
# plan.sh - what `equipoise study CONFIG --plan` says of a study of this folder on 1, 4, 8 and 2 x 8 GPUs, as the
# comment that stands in CONFIG. Needs neither films nor weights: a table of as many films, and the shapes in configs/models/.
#
#   configs/plan.sh configs/vindr-sd15.ini
#
# Assumed, not measured: a GPU that computes 100 TFLOP/s in every op that counts (bf16) and sends 100 GB/s to the others
# of its node, in which the ranks of a diffusion model are. SPEED and LINK are others. EQUIPOISE is the program.
set -euo pipefail
config=${1:?expected a config of this folder}
here=$(cd "$(dirname "$0")" && pwd)
program=${EQUIPOISE:-$here/../build/equipoise}
value() { sed -n "s/^$1 *= *//p" "$config" | head -1; }
case $(basename "$config") in
vindr-*) films="5143 392 545" ;;    # the published training set, before films with both diseases are left out
kermany-*) films="1583 2780 1493" ;; # all of it
*) echo "plan.sh: $config: how many films it has is not known here" >&2 && exit 2 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
normal=$(value normal) a=$(value disease_a) b=$(value disease_b)
read -ra n <<<"$films"
printf '%s %s\n' "${normal:-normal}" "${n[0]}" "${a:-bacteria}" "${n[1]}" "${b:-virus}" "${n[2]}" |
    awk 'BEGIN { print "path,label,patient" }
        { for (i = 0; i < $2; i++) printf "%d.png,%s,p%d\n", ++n, $1, n }' >"$work/films.csv"

plan() { # GPUs, how they are called
    "$program" study "$config" --set data.format=csv --set data.source="$work/films.csv" \
        --set ldm.base="$here/models/$(basename "$(value base)")" \
        --plan --ranks "$1" --speed "${SPEED:-100}" --link "${LINK:-100}" |
        awk -v gpus="$2" '
            /^plan for/ { split($0, word, " about | if all"); time = word[2] }
            $1 == "baseline-a" { classifier = $17 " " $18 }
            $1 == "synth-a" { films = $16 " " $17 }
            $1 == "ldm-a" {
                split($2, r, "-")
                ranks = r[2] == "" ? 1 : r[2] - r[1] + 1
                within = ranks == 1 || int(r[1] / 8) == int(r[2] / 8)
                ldm = $17 " " $18
                passes = $8
                if (NF > 20) { exchange = $22 " " $23; exposed = $24 " " $25; share = $26 " %" }
            }
            END {
                if (time == "" || ldm == "" || !within) exit 1
                printf "; %5s %9s %9s %9s %9s %6d %7d %10s %10s %7s\n", gpus, time, ldm, films, classifier,
                    ranks, passes, exchange == "" ? "-" : exchange, exposed == "" ? "-" : exposed,
                    share == "" ? "-" : share
            }'
}
cat <<'END'
;             all   memory of a GPU, at most      a step of a diffusion model
;  GPUs   at best       ldm     synth  baseline  ranks  passes   exchange    exposed of step
END
plan 1 1
plan 4 4
plan 8 8
plan 16 "2 x 8"
