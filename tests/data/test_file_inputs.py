"""`load_file` gives exactly what `load` gives for a split in the same file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_vision import pair_rows, pairs, write

from unipeft_run.data import tasks
from unipeft_run.data.tasks.base import Task


def subclasses(cls: type) -> Iterator[type]:
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


def test_a_task_with_its_own_load_has_its_own_load_file() -> None:
    for module in pkgutil.iter_modules(tasks.__path__, f"{tasks.__name__}."):
        importlib.import_module(module.name)
    own = [cls for cls in subclasses(Task) if "load" in vars(cls)]
    assert own
    assert [cls.__name__ for cls in own if "load_file" not in vars(cls)] == []


@pytest.mark.parametrize("paragraphs", ["all", "evaluation", "none"])
def test_texts_of_one_video_are_joined_in_a_file_too(paragraphs: str, tmp_path: Path) -> None:
    def rows(count: int, first: int) -> list[dict[str, object]]:
        return [{**row, "id": f"v{n // 2}"} for n, row in enumerate(pair_rows(count, first))]

    folder = write(tmp_path, rows, 5)
    task = pairs(path=folder, paragraphs=paragraphs)
    split = task.load(["test"])["test"]
    assert len(split) == (5 if paragraphs == "none" else 3)
    assert task.load_file(folder / "test.parquet")[:] == split[:]
