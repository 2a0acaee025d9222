"""unipeft-report on hostile run folders: one line each, the rest tabulated, values literal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_runs import make_run, resolved

from unipeft_run.commands.report import main


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plant_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


ALIASES = b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"
DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "nested metrics": ("metrics.json", write(b'{"a": ' + b"[" * 100_000)),
    "huge number": ("metrics.json", write(b'{"seed": ' + b"9" * 5000 + b"}")),
    "FIFO": ("metrics.json", plant_fifo),
    "endless file": ("status.json", lambda path: (path.unlink(), path.symlink_to("/dev/zero"))),
    "date": ("config.yaml", write(b"seed: 2022-04-25")),
    "bytes": ("config.yaml", write(b"seed: !!binary aGVsbG8=")),
    "aliases": ("config.yaml", write(ALIASES)),
    "object": ("config.yaml", write(b"!!python/object/apply:os.system ['echo hacked']")),
    "escape sequence": ("config.yaml", write(b'"\x1b[2J": [')),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("arguments", [["outputs"], ["shares", "outputs", "--out", "x.svg"]])
def test_a_hostile_folder_is_one_line(
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    name: str,
    damage: Callable[[Path], object],
) -> None:
    make_run("task=sst2", "method=mam")
    bad = make_run("task=sst2", "method=bitfit")
    damage(bad / name)
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert ("mam" in out or Path("x.svg").stat().st_size) and len(err.splitlines()) == 1
    assert err.startswith(f"left out: {bad}: ") and "\x1b" not in err


ODD_CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "slot": {"attn": 3},
    "axes": {"attn": {"form": 3, "composition": []}},
    "numbers": {"ffn": {"form": {"rank": [1]}, "bottleneck": {}}},
    "sections": {"limit": [1], "tracking": 3},
    "escape sequence": {"limit": {"train": "[/bold]\n\x1b[2J"}},
    "long value": {"optim": {"lr": "[/bold]" * 10_000}},
    "weights": {"backbone": {"weights": ["random"]}},
    "task": {"task": {"name": ["sst2"]}},
    "pattern": {"unfreeze": "[*"},
}


def make_odd_run(changed: dict[str, Any], seed: int = 42) -> None:
    folder = make_run("task=sst2", "method=mam", f"seed={seed}")
    config = {**resolved("task=sst2", "method=mam", f"seed={seed}"), **changed}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("changed", ODD_CONFIGURATIONS.values(), ids=ODD_CONFIGURATIONS)
@pytest.mark.parametrize("form", ["text", "markdown", "csv"])
def test_odd_configurations_are_tabulated_or_left_out(
    capsys: pytest.CaptureFixture[str], form: str, changed: dict[str, Any]
) -> None:
    make_run("task=sst2", "method=mam", "seed=1")
    make_odd_run(changed)
    assert main(["outputs", "--format", form]) == 0
    out, err = capsys.readouterr()
    assert "mam" in out and "\x1b" not in out + err
    assert max(map(len, out.splitlines())) < 2000


def test_runs_with_odd_configurations_are_compared_with_the_paper(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seed, changed in enumerate(ODD_CONFIGURATIONS.values()):
        make_odd_run(changed, seed)
    for seed, metrics in enumerate(({"scale": "[/bold]"}, {"task": "\x1b[2J"}), start=100):
        make_run("task=sst2", "method=mam", f"seed={seed}", **metrics)
    assert main(["outputs", "--experiment", "table2_sst2"]) == 0
    out, err = capsys.readouterr()
    assert "MAM" in out and "\x1b" not in out + err


ODD_METRICS: dict[str, dict[str, Any]] = {
    "text": {"test/accuracy": "[red]high[/red]"},
    "list": {"test/accuracy": [1, 2]},
    "largest float": {"test/accuracy": 1.7e308, "test/loss": -1.7e308},
    "odd signatures": {"signatures": ["percent"]},
    "nested signatures": {"signatures": {"accuracy": {"a": "\x1b[2J"}}},
    "odd baseline": {"trivial/name": ["naive Bayes"]},
    "huge counts": {"parameters/trained": 1e300, "parameters/stored": 1 << 62},
    "markup": {"method": "[/bold]", "backbone": "[link=x]"},
    "wide characters": {"method": "方法" * 10},
    "newline": {"method": "mam\nlora"},
}


@pytest.mark.parametrize("changed", ODD_METRICS.values(), ids=ODD_METRICS)
@pytest.mark.parametrize("form", ["text", "markdown", "csv"])
def test_odd_metrics_are_printed_on_one_line(
    capsys: pytest.CaptureFixture[str], changed: dict[str, Any], form: str
) -> None:
    make_run("task=mnli", "method=mam")
    make_run("task=sst2", "method=mam", "seed=1")
    make_run("task=sst2", "method=mam", **changed)
    assert main(["outputs", "--format", form]) == 0
    out, err = capsys.readouterr()
    assert "mnli" in out and "\x1b" not in out and err == ""
    assert max(map(len, out.splitlines())) < 2000


def test_markup_is_printed_literally(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("[/bold]", "[red]x[/red]", "unfreeze=[classifier*],[roberta*]")
    for seed, name in enumerate(names):
        make_run("task=sst2", "method=mam", f"seed={seed}", method=name)
    assert main(["outputs"]) == 0
    assert all(name in capsys.readouterr().out for name in names[:1])
    assert main(["outputs", "--format", "markdown"]) == 0
    assert r"unfreeze=[classifier\*],[roberta\*]" in capsys.readouterr().out


def test_curves_skip_odd_records_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    odd = [1e308, "x", [1], None, True, {"a": 1}, 0.5]
    good, bad = (make_run("task=sst2", "method=mam", f"seed={seed}") for seed in (1, 2))
    records = ({"step": step, "train/loss": value} for step, value in enumerate(odd))
    (good / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    os.mkfifo(bad / "train.jsonl")
    config = yaml.safe_load((good / "config.yaml").read_text())
    config["method"] = r"$\frac{"
    (good / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["curves", "outputs", "--out", "x.svg"]) == 0
    err = capsys.readouterr().err
    assert err == f"left out: sst2/mam/{bad.name}: train.jsonl is not a regular file\n"
    assert Path("x.svg").stat().st_size
