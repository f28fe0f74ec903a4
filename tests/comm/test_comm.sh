#!/bin/bash
# test_comm.sh - every collective on 1 to 4 CPU ranks, started by mpirun; splits. Skipped without MPI.
set -u
rank=$(dirname "$1")/comm_rank
if ! command -v mpirun >/dev/null || ! ldd "$rank" | grep -q libmpi; then
    echo "SKIPPED: built without MPI, or no mpirun"
    exit 77
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMP_NUM_THREADS=1 LSAN_OPTIONS=suppressions=$SOURCE_DIR/tests/comm/mpi.supp:print_suppressions=0
failed=0
for scenario in collectives split; do
    for n in 1 2 3 4; do
        said=$(timeout 60 mpirun --oversubscribe -n $n "$rank" $scenario 2>&1)
        code=$?
        [ $code = 0 ] && [ "$said" = ok ] || { echo "FAILED: $scenario on $n: $code, $said"; failed=1; }
    done
    said=$("$rank" $scenario 2>&1)
    [ "$said" = ok ] || { echo "FAILED: $scenario alone: $said"; failed=1; }
done
exit $failed
