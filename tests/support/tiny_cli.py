"""Call console commands in this process, with a stub of `run`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from unipeft_run.config import PlannedRun
from unipeft_run.errors import UserError


def call(entry: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Call the console command `entry` with `arguments`; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["unipeft", *arguments])
    with pytest.raises(SystemExit) as end:
        entry()
    code = end.value.code
    return int(code or 0)


FAILURES: dict[int, BaseException] = {  # by seed
    66: RuntimeError("the disk is full"),
    67: UserError("no folder there"),
    68: KeyboardInterrupt(),
    69: SystemExit(7),
}


def stub_runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace `run` by a stub, which trains nothing and fails for some seeds.

    Returns the list that collects the configurations it is given.
    """
    seen: list[dict[str, Any]] = []

    def run(planned: PlannedRun) -> dict[str, Any]:
        seen.append(planned.config.plain())
        if planned.config.seed in FAILURES:
            raise FAILURES[planned.config.seed]
        skipped = planned.folder.exists()
        planned.folder.mkdir(parents=True, exist_ok=True)
        return {"state": "skipped" if skipped else "done", "primary": "test/x", "test/x": 87.25}

    stub = ModuleType("unipeft_run.run")
    stub.run = run  # type: ignore[attr-defined]
    stub.evaluate = lambda folder, split, **given: {"accuracy": 87.25}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unipeft_run.run", stub)
    return seen
