# shell.sh - the head of every test written in bash (tests/slurm and tests/container do not use it): a scratch folder
# $work, removed at the end, and fail().
set -u
export OMP_WAIT_POLICY=passive # other tests may run beside this one
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
fail() {
    echo "FAILED: $*"
    failed=1
}
