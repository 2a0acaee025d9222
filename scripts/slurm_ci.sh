#!/bin/sh
# Run scripts/engines.py on a real Slurm: a grid, one of whose jobs is killed. As root, on Debian:
#     sh scripts/slurm_ci.sh [python]
# This Python must have the slurm extra: pip install 'unipeft[slurm]'
set -e
cd "$(dirname "$0")/.."
apt-get update -q
apt-get install -q -y --no-install-recommends slurmctld slurmd slurm-client munge
sh scripts/slurm_node.sh
trap 'sh scripts/slurm_node.sh stop' EXIT
"${1:-python3}" scripts/engines.py slurm --grid method=mam,lora_ffn
