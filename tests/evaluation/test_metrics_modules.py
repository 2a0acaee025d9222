"""The metrics through `evaluate.load`, without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import unipeft_run
from unipeft_run.evaluation.metrics import accuracy, bleu, rouge

MODULES = Path(unipeft_run.__file__).parent / "evaluation" / "metrics" / "modules"
TEXTS = ["the cat sat on the mat", "a dog ran"], ["the cat sat on a mat", "the dog ran away"]
CASES = {
    "accuracy": (accuracy, ([1, 0, 2], [1, 1, 2])),
    "rouge": (rouge, TEXTS),
    "romanian_bleu": (bleu, TEXTS),
}
PROGRAM = """
import json, socket, sys

def refuse(*_):
    raise AssertionError("a network was asked for")

socket.socket.connect = socket.getaddrinfo = refuse
import evaluate

found = {}
for path, (predictions, references) in json.loads(sys.argv[1]).items():
    metric = evaluate.load(path)
    found[metric.name] = metric.compute(predictions=predictions, references=references)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_modules_load_and_give_our_scores(tmp_path: Path) -> None:
    asked = {str(MODULES / name): pairs for name, (_, pairs) in CASES.items()}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(asked)],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_UPDATE_DOWNLOAD_COUNTS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    results = json.loads(found.stdout.splitlines()[-1])
    assert results.keys() == CASES.keys()
    for name, (metric, pairs) in CASES.items():
        scores = metric(*pairs)
        assert results[name].pop("signatures") == scores.signatures
        assert results[name] == pytest.approx(scores.metrics)
