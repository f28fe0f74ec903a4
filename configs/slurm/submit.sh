#!/usr/bin/env bash
# submit.sh - a study as Slurm jobs, one for each stage that is not complete, each of which starts when those that it
# needs have ended well; if one fails, those that need it are cancelled. The same command submits what is left.
#
#   CONFIG=configs/vindr-sd15.ini RUN=runs/vindr-sd15 configs/slurm/submit.sh --gpus-per-node=4 --ntasks-per-node=4
#
# The options are sbatch's; prepare and report get those of ONE behind them (--nodes=1 --ntasks-per-node=1).
# SEEDS="1 2 3": as many studies with these seeds, in RUN/seed-1 and so on: each stage is then an array of jobs, of
# which each waits for those of its own seed only. EQUIPOISE, OPTIONS, MPI, RESTARTS: as in study.sbatch, which runs them.
set -euo pipefail
: "${CONFIG:?is not set: the INI file of the study}" "${RUN:?is not set: the run folder}"
here=$(cd "$(dirname "$0")" && pwd)
program=${EQUIPOISE:-build/equipoise}
read -ra seeds <<<"${SEEDS:-}"
read -ra one <<<"${ONE:---nodes=1 --ntasks-per-node=1}"
after=afterok array=() runs=("$RUN")
if [ ${#seeds[@]} -gt 0 ]; then
    after=aftercorr array=("--array=0-$((${#seeds[@]} - 1))") runs=("${seeds[@]/#/$RUN/seed-}")
fi
declare -A job=()

# The stages that are complete in all run folders.
complete() {
    local run
    for run in "${runs[@]}"; do
        "$program" study "$CONFIG" --run "$run" --list-stages | awk '$2 == "complete" { print $1 }'
        [ ! "$run/report.html" -nt "$run/metrics.json" ] || echo report # keeps no record
    done |
        sort | uniq -c | awk -v n=${#runs[@]} '$1 == n { print $2 }'
}
done=" $(complete | tr '\n' ' ') "

while read -r stage needs; do
    [[ $done == *" $stage "* ]] && continue
    wait=""
    for need in $needs; do [ -z "${job[$need]:-}" ] || wait+=":${job[$need]}"; done
    size=("$@")
    case $stage in prepare | report) size+=("${one[@]}") ;; esac
    job[$stage]=$(STAGE=$stage SEEDS="${seeds[*]}" sbatch --parsable --job-name="$stage" --kill-on-invalid-dep=yes \
        ${wait:+"--dependency=$after$wait"} ${array[@]+"${array[@]}"} ${size[@]+"${size[@]}"} "$here/study.sbatch")
    echo "${job[$stage]} $stage${wait:+ after$wait}"
done < <("$program" study "$CONFIG" --run "$RUN" --list-stages |
    awk '{ stage = $1; sub(/.* after/, ""); sub(/ nothing$/, ""); print stage $0 }')
[ ${#job[@]} -gt 0 ] || echo "nothing to do: all stages are complete"
