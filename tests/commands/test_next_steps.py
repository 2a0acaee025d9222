"""The line that ends a run: commands that use it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_cli import stub_runs

from unipeft_run import cli
from unipeft_run.commands.next_steps import suggest_commands

SST2 = ("task=sst2", "method=mam", "scale=mini")


def test_a_finished_run_says_what_to_do_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    stub_runs(monkeypatch)
    command = replace(cli.TRAIN, suggest=suggest_commands)
    for output, images in (("outputs", False), ("there", True)):
        words = ["task=didemo", "method=lora_attn", "scale=mini"] if images else SST2
        assert cli.main(command, [*words, f"output={output}"]) == 0
        (folder,) = Path(output).glob("*/*/*")
        run = folder.name if output == "outputs" else folder
        use = f"eval {run} --split validation" if images else f"predict {run} FILE"
        line = f"next: unipeft {use}, unipeft report {output}, or unipeft export {run} --out DIR"
        assert capsys.readouterr().out.splitlines() == [line]
    assert cli.main(command, SST2) == 0, "skipped"
    assert "next:" not in capsys.readouterr().out
