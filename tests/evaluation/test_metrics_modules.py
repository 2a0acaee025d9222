"""The metrics as `evaluate` modules, loaded without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import unipeft_run
from unipeft_run.evaluation.metrics import accuracy, bleu, rouge

MODULES = Path(unipeft_run.__file__).parent / "evaluation" / "metrics" / "modules"
TEXTS = ["the cat sat on the mat", "a dog ran"], ["the cat sat on a mat", "the dog ran away"]
ACCENTED = ["caf\u00e9 au lait"], ["caf\u00e9 noir"]
CASES: dict[str, tuple[Any, Any, dict[str, str]]] = {
    "accuracy": (accuracy, ([1, 0, 2], [1, 1, 2]), {}),
    "rouge": (rouge, ACCENTED, {"tokenizer": "unicode"}),
    "romanian_bleu": (bleu, TEXTS, {}),
}
PROGRAM = """
import json, socket, sys

def refuse(*_):
    raise AssertionError("network access")

socket.socket.connect = socket.getaddrinfo = refuse
import evaluate

results = {}
for path, ((predictions, references), options) in json.loads(sys.argv[1]).items():
    metric = evaluate.load(path)
    results[metric.name] = metric.compute(
        predictions=predictions, references=references, **options
    )
print(json.dumps(results))
"""


@pytest.mark.slow
def test_modules_load_offline_and_give_the_same_scores(tmp_path: Path) -> None:
    calls = {str(MODULES / name): (pairs, options) for name, (_, pairs, options) in CASES.items()}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(calls)],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_UPDATE_DOWNLOAD_COUNTS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    assert results.keys() == CASES.keys()
    for name, (metric, pairs, options) in CASES.items():
        scores = metric(*pairs, **options)
        assert results[name].pop("signatures") == scores.signatures
        assert results[name] == pytest.approx(scores.metrics)
