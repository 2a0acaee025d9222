#!/bin/sh
# A grid on a real Slurm, one of its jobs killed: see scripts/engines.py. As root, on Debian:
#     sh scripts/slurm_ci.sh [python]
# The python has to have unipeft with its extra: pip install 'unipeft[slurm]'
set -e
cd "$(dirname "$0")/.."
apt-get update -q
apt-get install -q -y --no-install-recommends slurmctld slurmd slurm-client munge
sh scripts/slurm_node.sh
trap 'sh scripts/slurm_node.sh stop' EXIT
"${1:-python3}" scripts/engines.py slurm --grid method=mam,lora_ffn
