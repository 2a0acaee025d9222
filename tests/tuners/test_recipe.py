"""A method of the PEFT library from the command line: train, resume, evaluate, count, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_cli import call
from tiny_recipe import make_overrides, write

from unipeft_run import cli
from unipeft_run.config import compose, resolve
from unipeft_run.deltas.counting.counts import counts
from unipeft_run.run import evaluate
from unipeft_run.runs.finished import finished_runs

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")

SIZES = ("peft.config.r=4",)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write(folder)
    return folder


def metrics_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


@pytest.mark.parametrize(("task", "method"), [("sst2", "dora"), ("xsum", "vera")])
def test_a_run_is_trained_counted_evaluated_and_tabulated(
    task: str, method: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "outputs"
    words = make_overrides(task, inputs, f"method=peft/{method}", *SIZES, f"output={output}")
    assert call(cli.train, monkeypatch, *words) == 0
    (run,) = (output / task / f"peft-{method}").iterdir()
    metrics = metrics_of(run)
    assert metrics["method"] == f"peft/{method}" and metrics["peft"]
    again = evaluate(run, "test")
    assert all(metrics[f"test/{name}"] == pytest.approx(value) for name, value in again.items())
    table = json.loads((run / "parameters.json").read_text())
    counted = counts(resolve(compose(words)))
    for key in ("trained", "stored", "backbone"):
        assert table[key] == counted[key] == metrics.get(f"parameters/{key}", table[key])
    assert {site["slot"] for site in table["sites"]} >= {"peft"}
    (finished,), left_out = finished_runs([output])
    assert finished.metrics["method"] == f"peft/{method}" and not left_out


def test_a_resumed_run_equals_an_uninterrupted_one(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    results = []
    for name, stops in (("whole", ()), ("parts", (2,))):
        words = make_overrides(
            "sst2",
            inputs,
            "method=peft/adalora",
            *("peft.config.init_r=4", "peft.config.target_r=2"),
            f"output={tmp_path / name}",
        )
        for step in stops:
            _stop_after(step, words, monkeypatch)
        assert call(cli.train, monkeypatch, *words) == 0
        (run,) = (tmp_path / name / "sst2" / "peft-adalora").iterdir()
        results.append(metrics_of(run))
    assert results[0]["test/loss"] == results[1]["test/loss"]
    assert results[0]["train/loss"] == results[1]["train/loss"]


def _stop_after(step: int, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt the training after an update, as SIGINT would."""
    from unipeft_run.errors import Interrupted
    from unipeft_run.training.interrupts import Interrupts

    def check(self: Any, device: Any) -> None:
        check.calls += 1  # type: ignore[attr-defined]
        if check.calls == step:  # type: ignore[attr-defined]
            raise Interrupted(2)

    check.calls = 0  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(Interrupts, "check", check)
        assert call(cli.train, monkeypatch, *words) != 0
