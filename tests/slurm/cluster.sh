#!/usr/bin/env bash
# cluster.sh - a Slurm cluster of several nodes on this machine, for tests: `cluster.sh up NODES CPUS` in
# $SLURM_TEST_DIR, `cluster.sh down`. Needs root, slurmctld, slurmd and slurm-client; no munge, no systemd.
#
# Every node has a /dev/shm of its own (else Open MPI would take two nodes for one) and a temporary folder of its own
# (PMIx keeps its sockets there). Ports follow the folder's name, so that two clusters can be up.
set -Eeuo pipefail
: "${SLURM_TEST_DIR:?is not set}"
export SLURM_CONF=$SLURM_TEST_DIR/slurm.conf
trap 'tail -n 5 "$SLURM_TEST_DIR"/*.log >&2' ERR
host=$(hostname -s)
port=$((17000 + $(cksum <<<"$SLURM_TEST_DIR" | cut -d' ' -f1) % 10000))

write_config() { # nodes, CPUs of each
    cat >"$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
StateSaveLocation=$SLURM_TEST_DIR/state
SlurmdSpoolDir=$SLURM_TEST_DIR/spool-%n
TmpFS=$SLURM_TEST_DIR/tmp-%n
SlurmctldPidFile=$SLURM_TEST_DIR/slurmctld.pid
SlurmdPidFile=$SLURM_TEST_DIR/slurmd-%n.pid
SlurmctldLogFile=$SLURM_TEST_DIR/slurmctld.log
SlurmdLogFile=$SLURM_TEST_DIR/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
MpiDefault=none
ReturnToService=2
KillWait=10
SlurmdTimeout=30
SlurmdParameters=config_overrides
NodeName=n[1-$1] NodeAddr=127.0.0.1 NodeHostname=$host Port=[$((port + 1))-$((port + $1))] CPUs=$2 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES MaxTime=UNLIMITED State=UP
END
    # cgroups are not used. Only this plugin starts where none are mounted, as in a chroot.
    echo "CgroupPlugin=cgroup/v1" >"$SLURM_TEST_DIR/cgroup.conf"
}

up() {
    mkdir -p "$SLURM_TEST_DIR/state"
    write_config "$@"
    slurmctld -i
    for node in $(seq "$1"); do
        mkdir -p "$SLURM_TEST_DIR/spool-n$node" "$SLURM_TEST_DIR/tmp-n$node"
        unshare -m --propagation private sh -c "mount -t tmpfs tmpfs /dev/shm && exec slurmd -N n$node"
    done
    for _ in $(seq 120); do
        [ "$(sinfo -h -o %D -t idle 2>/dev/null)" = "$1" ] && return
        sleep .25
    done
    echo "slurm: the $1 nodes are not up after 30 s" >&2
    return 1
}

down() {
    scancel -u root 2>/dev/null || true
    for _ in $(seq 60); do
        [ -z "$(squeue -h 2>/dev/null)" ] && break
        sleep .25
    done
    for pid in "$SLURM_TEST_DIR"/*.pid; do
        [ ! -s "$pid" ] || kill "$(cat "$pid")" 2>/dev/null || true
    done
    sleep 1
}

"$@"
