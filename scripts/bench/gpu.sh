#!/bin/sh
# Repeat the benchmarks of docs/performance.md on a machine with one GPU and without a network.
#
#     scripts/bench/gpu.sh [WHEELS]       each part has a time limit, together under eight minutes
#
# WHEELS is a folder with wheels of the packages that the machine lacks, for example made in bash by
#     pip download -d wheels --no-deps -r <(pip freeze --exclude-editable | grep -v torch)
# Results go to $OUT (default: outputs/bench).
set -eu
cd "$(dirname "$0")/../.."
out=${OUT:-outputs/bench}
mkdir -p "$out"
site=$(mktemp -d)
if [ $# -gt 0 ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$site" "$1"/*.whl
fi
export PYTHONPATH="$site:$PWD" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
began=$(date +%s)

part() { # NAME SECONDS COMMAND...: run with a limit; a failure does not end the others
    name=$1 limit=$2
    shift 2
    echo "=== $(($(date +%s) - began)) s  $name"
    timeout "$limit" "$@" > "$out/$name.txt" 2>&1 || echo "$name: exit code $?"
    tail -12 "$out/$name.txt"
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/card.txt"
part checks 90 python3 -m pytest -q -p no:cacheprovider tests/training/test_cuda.py
part train 150 python3 scripts/bench/train.py --shape large --precision bf16 --batch-size 16 \
    --accumulation 4 --target-tokens 64 --examples 512 --rounds 2 --json "$out/train.json"
part beam16 60 python3 scripts/bench/beam.py --shape large --types bf16 --sources 16 --repeats 2 \
    --json "$out/beam16.json"
part beam64 90 python3 scripts/bench/beam.py --shape large --types bf16 --sources 64 --repeats 1 \
    --json "$out/beam64.json"
part evaluation 60 python3 scripts/bench/evaluation.py --shape large --type bf16 --examples 128 \
    --batch-size 64 --repeats 1 --json "$out/evaluation.json"
echo "=== $(($(date +%s) - began)) s  done: $out"
