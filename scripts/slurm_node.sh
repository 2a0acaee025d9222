#!/bin/sh
# Start a one-node Slurm on this machine, to try hydra/launcher=submitit_slurm. As root, on Debian:
#     apt-get install slurmctld slurmd slurm-client munge
#     sh scripts/slurm_node.sh
#     sh scripts/slurm_node.sh stop
set -e
if [ "$1" = stop ]; then
    scontrol shutdown
    kill "$(cat /run/munge/munged.pid)"
    exit
fi
cpus=$(nproc)
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
mkdir -p /etc/slurm /run/munge /var/spool/slurmctld /var/spool/slurmd
cat > /etc/slurm/slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$(hostname -s)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
ReturnToService=2
NodeName=$(hostname -s) CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
chown munge /run/munge
su -s /bin/sh munge -c /usr/sbin/munged || true
slurmctld
slurmd
for _ in $(seq 30); do
    sinfo -h -o %T 2> /dev/null | grep -q idle && break
    sleep 1
done
sinfo
