"""Finished runs, made once for all tests of a module."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from finished_runs import make_finished

METHODS = {"xsum": "lora_ffn", "wmt16_en_ro": "lora_attn", "sst2": "lora_attn", "mnli": "lora_attn"}


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the data, backbone and runs of each task; its `outputs` holds the runs."""
    folder = tmp_path_factory.mktemp("home")
    before = os.environ.get("UNIPEFT_CACHE")
    os.environ["UNIPEFT_CACHE"] = str(folder / "cache")
    yield folder
    if before is None:
        del os.environ["UNIPEFT_CACHE"]
    else:
        os.environ["UNIPEFT_CACHE"] = before


@pytest.fixture(scope="session")
def finished(home: Path) -> Callable[..., Path]:
    """Return the run folder of a task, by default with the method in METHODS."""
    made: dict[tuple[str, ...], Path] = {}

    def get(task: str, *overrides: str) -> Path:
        words = overrides or (f"method={METHODS[task]}",)
        key = (task, *words)
        if key not in made:
            made[key] = make_finished(home, task, *words)
        return made[key]

    return get
