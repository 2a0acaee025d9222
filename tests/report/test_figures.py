"""Figures of runs: lines, labels and user errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_run

from unipeft_run.commands import report as cli
from unipeft_run.report import figures

pytest.importorskip("matplotlib")


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, method in enumerate(("mam", "bitfit")):
        for seed in (1, 2):
            folder = make_run("task=sst2", f"method={method}", f"seed={seed}", primary=80.0 + seed)
            lines: list[dict[str, Any]] = [
                {"step": step, "train/loss": number + 1 / step, "train/lr": 0.1}
                for step in (1, 2, 3)
            ]
            lines.append({"step": 3, "validation/loss": 0.5, "validation/accuracy": 70.0 + seed})
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / "train.jsonl").write_text(text)
    return tmp_path / "outputs"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Return the last figure that was written."""
    kept: list[Any] = []
    write = figures._write
    monkeypatch.setattr(figures, "_write", lambda f, file: (kept.append(f), write(f, file)))
    return lambda: kept[-1]


def test_curves_are_averaged_over_the_seeds(outputs: Path, drawn: Callable[[], Any]) -> None:
    assert cli.main(["curves", "outputs", "--out", "curves.svg"]) == 0
    assert Path("curves.svg").read_text().startswith("<?xml")
    loss, metric, lr = drawn().axes
    assert [axes.get_ylabel() for axes in (loss, metric, lr)] == [
        "train/loss",
        "validation/accuracy",
        "train/lr",
    ]
    assert loss.get_title() == "sst2-mini"
    lines = {line.get_label(): line.get_xydata().tolist() for line in loss.lines}
    assert lines["bitfit (2 seeds)"] == [[1, 2.0], [2, 1.5], [3, 1 + 1 / 3]]
    assert sorted(lines) == ["bitfit (2 seeds)", "mam (2 seeds)"]
    assert [line.get_xydata().tolist() for line in metric.lines] == [[[3, 71.5]], [[3, 71.5]]]
    (band, _) = metric.collections
    heights = [float(y) for _, y in band.get_paths()[0].vertices]
    assert (min(heights), max(heights)) == pytest.approx((71.5 - 0.5**0.5, 71.5 + 0.5**0.5))
    assert not loss.collections, "the seeds have the same losses"


def test_a_curve_label_names_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: Callable[[], Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in ((), ("backbone.weights=random",)):
        folder = make_run("task=sst2", "method=mam", *arguments)
        (folder / "train.jsonl").write_text('{"step": 1, "train/loss": 1.0}\n')
    assert cli.main(["curves", "outputs", "--out", "curves.svg"]) == 0
    labels = {line.get_label() for line in drawn().axes[0].lines}
    assert labels == {"mam backbone.weights=pretrained", "mam backbone.weights=random"}


def test_scores_are_drawn_over_stored_shares(outputs: Path, drawn: Callable[[], Any]) -> None:
    assert cli.main(["shares", "outputs", "--out", "shares.png"]) == 0
    assert Path("shares.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = drawn().axes
    points = {c.get_label(): c.lines[0].get_xydata().tolist() for c in axes.containers}
    assert points == {"mam": [[1.6348, 81.5]], "bitfit": [[1.6348, 81.5]]}
    dashed = [line.get_label() for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == ["trivial: naive Bayes"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["curves", "nowhere"], "nowhere is not a run folder"),
        (["curves", "empty"], "no run has a record yet"),
        (
            ["shares", "outputs", "--out", "shares.doc"],
            "shares.doc: the name of a figure ends in .svg, .png, .pdf",
        ),
        (["shares", "outputs", "--out", "nowhere/shares.svg"], "cannot be written"),
    ],
)
def test_an_error_is_one_sentence(
    outputs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    Path("empty").mkdir()
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert part in err and len(err.splitlines()) == 1
