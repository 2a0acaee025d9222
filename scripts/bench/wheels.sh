#!/bin/sh
# Collect wheels for gpu.sh: what a machine with torch, pandas, pyarrow, sacrebleu and pytest lacks.
#
#     scripts/bench/wheels.sh FOLDER [PYTHON]     PYTHON: that machine's version, 3.12 by default
#
# Run it in this project's environment: it uses the versions of constraints.txt.
set -eu
cd "$(dirname "$0")/../.."
folder=$1 version=${2:-3.12} pip="${VENV:-.venv}/bin/python -m pip"
$pip download -q -d "$folder" -c constraints.txt --no-deps --only-binary=:all: \
    --python-version "$version" --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
    --platform any \
    transformers tokenizers huggingface_hub httpx2 httpcore2 truststore \
    datasets dill multiprocess hydra-core omegaconf \
    pydantic pydantic_core annotated-types typing-inspection \
    evaluate nltk defusedxml accelerate peft
# published as source only
$pip wheel -q -w "$folder" --no-deps "antlr4-python3-runtime==4.9.*" rouge_score
du -sh "$folder"
