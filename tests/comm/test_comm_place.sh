#!/bin/bash
# test_comm_place.sh - who a process is, from what its launcher sets; contradictions are refused.
# shellcheck source=tests/comm/jobs.sh
. "$SOURCE_DIR/tests/comm/jobs.sh"

place() { # WANT VARIABLE=VALUE...
    local want=$1 said
    shift
    said=$(env "$@" "$rank" place 2>&1)
    [ "$said" = "$want" ] || fail "$*: says \"$said\", expected \"$want\""
}
refused() { # VARIABLE=VALUE... MESSAGE: the last is what is said
    local said code
    said=$(env "${@:1:$#-1}" "$rank" place 2>&1)
    code=$?
    [ $code = 2 ] && [ "$said" = "equipoise: ${!#}" ] || fail "${*:1:$#-1}: $code, says \"$said\""
}

slurm="SLURM_JOB_ID=7 SLURM_NTASKS=5"
step="$slurm SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=5 SLURM_STEP_TASKS_PER_NODE=2(x2),1"
open="OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=2"
torch="RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4 MASTER_ADDR=n1 MASTER_PORT=29500"
# shellcheck disable=SC2086 # lists of variables
{
    place '0 of 1, 0 of 1, alone' A=
    place '0 of 1, 0 of 1, alone' $slurm SLURM_PROCID=0 SLURM_LOCALID=0 # a batch shell
    place '4 of 5, 0 of 1, srun' $step SLURM_PROCID=4 SLURM_LOCALID=0 SLURM_NODEID=2
    place '3 of 5, 1 of 2, srun' $step SLURM_PROCID=3 SLURM_LOCALID=1 SLURM_NODEID=1
    place '3 of 4, 1 of 2, mpirun' $open
    place '3 of 4, 1 of 2, mpirun' $open $step SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 # its helper's
    place '5 of 8, 1 of 4, environment' $torch
    place '5 of 8, 1 of 4, environment' $torch TORCHELASTIC_RUN_ID=a $step SLURM_PROCID=1 SLURM_LOCALID=0 SLURM_NODEID=0
    place '1 of 2, 1 of 2, environment' RANK=1 WORLD_SIZE=2
    place '1 of 2, 1 of 2, environment' RANK=1 WORLD_SIZE=2 MASTER_ADDR=localhost
    place '0 of 1, 0 of 1, environment' RANK=0 WORLD_SIZE=1
    place '3 of 5, 1 of 2, srun' $step SLURM_PROCID=3 SLURM_LOCALID=1 SLURM_NODEID=1 WORLD_SIZE=5 RANK=3

    refused RANK=1 'WORLD_SIZE is not set, but RANK is: several ranks need both'
    refused WORLD_SIZE=2 'RANK is not set, but WORLD_SIZE is: several ranks need both'
    refused RANK=2 WORLD_SIZE=2 'RANK is 2, expected less than WORLD_SIZE, which is 2'
    refused RANK=x WORLD_SIZE=2 'RANK is "x", expected a number from 0'
    refused RANK=0 WORLD_SIZE=0 'WORLD_SIZE is "0", expected a number from 1'
    refused RANK=0 WORLD_SIZE=2 MASTER_ADDR=n1 'LOCAL_RANK is not set, but RANK is: several ranks need both'
    refused RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=n1 'LOCAL_WORLD_SIZE is not set, but RANK is: several ranks need both'
    refused RANK=0 WORLD_SIZE=4 LOCAL_RANK=2 LOCAL_WORLD_SIZE=2 \
        'environment says rank 0 of 4, but number 2 of 2 on this host'
    refused $step SLURM_PROCID=3 SLURM_LOCALID=1 SLURM_NODEID=1 WORLD_SIZE=4 \
        'WORLD_SIZE is 4, but SLURM_STEP_NUM_TASKS says 5: expected one of the two, or both alike'
    refused $open RANK=0 WORLD_SIZE=4 'RANK is 0, but OMPI_COMM_WORLD_RANK says 3: expected one of the two, or both alike'
    refused $step SLURM_STEP_TASKS_PER_NODE='2(x' SLURM_PROCID=3 SLURM_LOCALID=1 SLURM_NODEID=1 \
        'SLURM_STEP_TASKS_PER_NODE is "2(x", expected the tasks of node 1'
    refused $step SLURM_LOCALID=1 SLURM_NODEID=1 'SLURM_PROCID is not set, but SLURM_STEP_NUM_TASKS is: several ranks need both'
}
exit $failed
