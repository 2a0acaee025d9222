#!/bin/sh
# Repeat the benchmarks of docs/performance.md on a machine with one GPU and without a network.
#
#     scripts/bench/gpu.sh [WHEELS]
#
# WHEELS is a folder made by wheels.sh. The time limits of all parts add up to eight minutes;
# installing the wheels comes on top. Results go to $OUT (default: outputs/bench): report.txt and
# JSON. The weights in miniatures/ are not needed.
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
    timeout "$limit" "$@" 2>&1 || echo "$name: exit code $?"
}

bench() { # NAME SECONDS SCRIPT ARGUMENTS...
    name=$1 limit=$2 script=$3
    shift 3
    part "$name" "$limit" python3 -W ignore "scripts/bench/$script.py" --json "$out/$name.json" "$@"
}

{
    part card 20 nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
    part versions 30 python3 -c "import sys, torch; print(sys.version.split()[0], torch.__version__)"
    part checks 90 python3 -m pytest -v -W default -p no:cacheprovider \
        tests/training/test_cuda.py tests/evaluation/test_generate_cuda.py
    bench train 190 train --shape large --precision bf16 --batch-size 16 --accumulation 4 \
        --target-tokens 64 --examples 512 --rounds 2
    bench beam16 50 beam --shape large --types bf16 --sources 16 --repeats 1
    bench beam64 90 beam --shape large --types bf16 --sources 64 --repeats 1
    bench evaluation 60 evaluation --shape large --type bf16 --examples 128 --batch-size 64 \
        --repeats 1
    echo "=== $(($(date +%s) - began)) s  done: $out"
} 2>&1 | tee "$out/report.txt"
