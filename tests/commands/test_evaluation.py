"""`unipeft eval` on several runs: what belongs to which run, in text and in JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from tiny_cli import call

from unipeft_run import cli
from unipeft_run.config import compose, plan
from unipeft_run.errors import UserError

Capture = pytest.CaptureFixture[str]
SCORES = {"one": 87.25, "two": 90.5}


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs `one` and `two`, and a stub that evaluates them; the run `other` is refused."""
    config = yaml.safe_dump(plan(compose(["task=sst2", "method=mam"])).config.plain())
    for name in (*SCORES, "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(config)

    def evaluate(folder: Path, split: str, **given: object) -> dict[str, float]:
        if folder.name not in SCORES:
            raise UserError("other has no delta")
        return {"loss": 0.5, "accuracy": SCORES[folder.name]}

    stub = ModuleType("unipeft_run.run")
    stub.evaluate = evaluate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unipeft_run.run", stub)
    monkeypatch.chdir(tmp_path)


def test_several_runs_are_named_and_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert call(cli.evaluate, monkeypatch, "one", "two", "split=validation") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "one:",
        "validation/loss 0.5",
        "validation/accuracy 87.25",
        "two:",
        "validation/loss 0.5",
        "validation/accuracy 90.5",
    ]
    assert lines[6].split() == ["cell", "state", "metric", "seconds"]
    assert ["validation/accuracy" in line for line in lines[7:]] == [True, True]


def test_the_json_of_several_runs_is_one_list(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert call(cli.evaluate, monkeypatch, "one", "other", "--format", "json") == 1
    found, refused = json.loads(capsys.readouterr().out)
    assert found == {"run": "one", "test/loss": 0.5, "test/accuracy": 87.25}
    assert refused == {"run": "other", "state": "refused", "error": "other has no delta"}


def test_the_json_of_one_run_is_one_object(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert call(cli.evaluate, monkeypatch, "two", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["test/accuracy"] == 90.5
