"""unipeft runs: when each run started, and what distinguishes it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from made_runs import make_sst2_run

from unipeft_run.commands.runs import COLUMNS, main


def test_the_newest_run_is_last_with_its_start_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = ("ffn.bottleneck=8",), ("ffn.bottleneck=4", "composition@ffn=add")
    times = [datetime(2026, 5, 1, hour, 30, 59, tzinfo=UTC) for hour in (12, 11)]
    for started, overrides in zip(times, variants, strict=True):
        file = make_sst2_run(tmp_path, "done", *overrides) / "status.json"
        status = json.loads(file.read_text()) | {"started": started.isoformat()}
        file.write_text(json.dumps(status))
    other = file.parents[1] / "ab12cd34"
    other.mkdir()
    damaged = "{task: {name: sst2}, method: mam, scale: mini, seed: 42, recipe: 3}"
    (other / "config.yaml").write_text(damaged)
    assert main([str(tmp_path)]) == 0
    header, other_line, first, last, _ = capsys.readouterr().out.splitlines()
    assert "2026" not in other_line and "=" not in other_line
    assert header.split() == [*COLUMNS]
    late, early = (f"  {started.astimezone():%Y-%m-%d %H:%M}  " for started in times)
    assert early in first and late in last
    assert first.endswith("  composition@ffn=add ffn.bottleneck=4")
    assert last.endswith("  composition@ffn=scaled ffn.bottleneck=8 ffn.scale=4")
    monkeypatch.setenv("COLUMNS", "70")
    assert main([str(tmp_path)]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 70
