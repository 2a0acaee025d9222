"""Run `unipeft` in a subprocess, in a folder, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from unipeft_run.commands.dispatch import COMMANDS

ROOT = Path(__file__).parents[2]


def present_commands() -> list[str]:
    """List the commands whose module is there."""
    return [name for name, c in COMMANDS.items() if find_spec(f"unipeft_run.{c.module}")]


def environment(folder: Path, **changed: str) -> dict[str, str]:
    """Return the environment of a command whose cache is in `folder`."""
    own = {"PYTHONPATH": str(ROOT), "UNIPEFT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, **changed}


def unipeft(folder: Path, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
    """Run `unipeft WORDS` in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "unipeft_run", *words],
        capture_output=True,
        text=True,
        env=environment(folder, **changed),
        cwd=folder,
    )


def install_script(folder: Path) -> Path:
    """Write an executable `unipeft` into `folder`, as the console script does; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "unipeft"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m unipeft_run "$@"\n')
    script.chmod(0o755)
    return script
