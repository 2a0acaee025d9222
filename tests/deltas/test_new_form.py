"""A user adds a functional form with one Python file and one YAML file, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_files import write_roberta, write_sentiment

PYTHON = '''
"""dh = (u W_down) * (u W_gate) W_up: a bottleneck whose activation is a second projection."""

import torch
from torch import nn

from unipeft_run.deltas.forms.base import Form


class Bilinear(Form):
    def __init__(self, site, *, rank, spread):
        super().__init__()
        self.down = nn.Linear(site.width_in, rank)
        self.gate = nn.Linear(site.width_in, rank)
        self.up = nn.Linear(rank, site.width_out, bias=False)
        for linear in (self.down, self.gate, self.up):
            nn.init.normal_(linear.weight, std=spread)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(u) * self.gate(u))
'''
YAML = """
# dh = (u W_down) * (u W_gate) W_up
bottleneck: ???
form:
  _target_: my_forms.bilinear.Bilinear
  _partial_: true
  rank: ${..bottleneck}
  spread: 0.2
"""
RANK, WIDTH, LAYERS = 3, 32, 2
TRAIN = (
    *("task=sst2", "method=parallel_ffn", "scale=mini", "debug=tiny"),
    *("form@ffn=bilinear", f"ffn.bottleneck={RANK}"),
    *("recipe.max_steps=3", "optim.lr=0.05", "task.path=data", "backbone.path=model"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder: data, a model, and the two files of a new form."""
    write_sentiment(tmp_path / "data")
    write_roberta(tmp_path / "model")
    (tmp_path / "python" / "my_forms").mkdir(parents=True)
    (tmp_path / "python" / "my_forms" / "bilinear.py").write_text(PYTHON)
    (tmp_path / "conf" / "form").mkdir(parents=True)
    (tmp_path / "conf" / "form" / "bilinear.yaml").write_text(YAML)
    return tmp_path


def command(folder: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the installed console script in `folder`, which finds the Python file by PYTHONPATH."""
    env = {
        **os.environ,
        "PYTHONPATH": str(folder / "python"),
        "UNIPEFT_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    script = str(Path(sys.executable).with_name(name))
    return subprocess.run([script, *words], capture_output=True, text=True, env=env, cwd=folder)


@pytest.mark.slow
def test_a_form_composes_trains_and_is_evaluated(folder: Path) -> None:
    done = command(folder, "unipeft-train", *TRAIN, "--config-dir", "conf")
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "outputs" / "sst2" / "parallel_ffn").iterdir()
    stored = json.loads((run / "metrics.json").read_text())
    (row, *_) = json.loads((run / "parameters.json").read_text())["sites"]
    assert (row["slot"], row["sites"]) == ("ffn", LAYERS)
    assert row["stored"] == LAYERS * (3 * RANK * WIDTH + 2 * RANK)
    losses = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    assert {record["step"] for record in losses} == {1, 2, 3}

    distrustful = command(folder, "unipeft-eval", f"run={run}")
    assert distrustful.returncode == 2
    assert "--allow my_forms.bilinear.Bilinear" in distrustful.stderr

    again = command(folder, "unipeft-eval", f"run={run}", "allow=[my_forms.]")
    assert again.returncode == 0, again.stderr
    metrics = dict(line.split() for line in again.stdout.splitlines())
    assert {name: float(value) for name, value in metrics.items()} == {
        name: stored[name] for name in metrics
    }
    assert {"test/accuracy", "test/loss"} <= metrics.keys()
