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
declare -A has=() job=()

# In how many of the run folders each stage is complete. An error of the program ends this script with its exit code.
for run in "${runs[@]}"; do
    # shellcheck disable=SC2086 # OPTIONS is a list of words
    list=$("$program" study "$CONFIG" --run "$run" ${OPTIONS:-} --list-stages)
    complete=$(awk '$2 == "complete" { print $1 }' <<<"$list")
    [ ! "$run/report.html" -nt "$run/metrics.json" ] || complete+=" report" # keeps no record
    for stage in $complete; do has[$stage]=$((${has[$stage]:-0} + 1)); done
done

while read -r stage needs; do
    [ "${has[$stage]:-0}" -lt ${#runs[@]} ] || continue
    wait=""
    for need in $needs; do [ -z "${job[$need]:-}" ] || wait+=":${job[$need]}"; done
    size=("$@")
    case $stage in prepare | report) size+=("${one[@]}") ;; esac
    job[$stage]=$(STAGE=$stage SEEDS="${seeds[*]}" sbatch --parsable --job-name="$stage" --kill-on-invalid-dep=yes \
        ${wait:+"--dependency=$after$wait"} ${array[@]+"${array[@]}"} ${size[@]+"${size[@]}"} "$here/study.sbatch")
    echo "${job[$stage]} $stage${wait:+ after$wait}"
done <<<"$(awk '{ stage = $1; sub(/.* after/, ""); sub(/ nothing$/, ""); print stage $0 }' <<<"$list")"
[ ${#job[@]} -gt 0 ] || echo "nothing to do: all stages are complete"
