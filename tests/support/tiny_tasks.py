"""Make tasks, and write data for them with two examples per split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset

from unipeft_run.data.tasks.base import Task
from unipeft_run.data.tasks.mnli import MNLI
from unipeft_run.data.tasks.sst2 import SST2
from unipeft_run.data.tasks.wmt16_en_ro import WMT16EnRo
from unipeft_run.data.tasks.xsum import XSum

ROWS: dict[str, list[dict[str, Any]]] = {
    "sst2": [
        {"sentence": "a fine film", "label": 1, "idx": 7},
        {"sentence": "a dull film", "label": 0, "idx": 8},
    ],
    "mnli": [
        {"premise": "a man sleeps", "hypothesis": "a man rests", "label": 0, "idx": 3},
        {"premise": "a man sleeps", "hypothesis": "nobody sleeps", "label": 2, "idx": 4},
    ],
    "xsum": [
        {"document": "One fell. Two stood up again.", "summary": "One fell.", "id": "x1"},
        {"document": "Rain came to the town. Roads shut.", "summary": "Rain.", "id": "x2"},
    ],
    "wmt16_en_ro": [
        {"translation": {"en": "the cat", "ro": "pisica"}},
        {"translation": {"en": "the open file is ready", "ro": "fi\u0219ierul deschis este gata"}},
    ],
}


def make(name: str, **settings: Any) -> Task:
    text = {"max_target_length": 12, "eval_target_length": 8}
    kinds: dict[str, Any] = {"sst2": SST2, "mnli": MNLI, "xsum": XSum, "wmt16_en_ro": WMT16EnRo}
    more = text if name in ("xsum", "wmt16_en_ro") else {}
    return kinds[name](**{"name": name, "max_source_length": 16, **more, **settings})


def write(folder: Path, name: str, rows: list[dict[str, Any]] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for split in ("train", "validation", "test"):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows or ROWS[name]]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def put(folder: Path, name: str, content: bytes) -> Path:
    """Write `content` to the file `name` in `folder`, creating its folders."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def load_test(folder: Path, name: str = "sst2", **settings: Any) -> Dataset:
    """Load the test split of a task on the data in `folder`."""
    return make(name, path=folder, **settings).load(["test"])["test"]
