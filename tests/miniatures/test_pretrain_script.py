"""The options of scripts/pretrain_mini.py."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "pretrain_mini.py"


@pytest.mark.parametrize("name", ["bart_mini", "clip_mini", "llama_mini"])
def test_a_stage_does_not_overwrite_the_one_it_starts_from(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    curve = tmp_path / "loss_curve.jsonl"
    curve.write_text("{}")
    same = str(tmp_path / ".." / tmp_path.name)
    words = [str(SCRIPT), name, "--start", str(tmp_path), "--folder", same]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPT))
    assert stop.value.code == 2
    assert "--start is the output folder" in capsys.readouterr().err
    assert curve.read_text() == "{}"
