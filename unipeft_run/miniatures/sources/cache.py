"""The cache folder, and building a folder in it as one atomic act."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unipeft_run.data.cache import cache_root

Row = dict[str, Any]

# Part of a built folder's name: raised whenever a split rule or a cleaning rule changes, so that an
# old cache is left alone instead of being taken for the new data.
RECIPE = "2"


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Inside, no other process fetches into this cache: apt's folder in it is several data sets'.

    However a process ends, what it held is free.
    """
    import fcntl

    cache_root().mkdir(parents=True, exist_ok=True)
    with (cache_root() / ".lock").open("w") as file:
        with suppress(OSError):  # a disk that knows no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """`folder`, made by `build(temporary folder)` and renamed into place when it is whole.

    Two processes may build at once: the first to finish wins, the other uses its result.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        build(scratch)
        scratch.chmod(0o755)
        try:
            scratch.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_jsonl(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _place(row: Row) -> bytes:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()


def write_splits(folder: Path, splits: Mapping[str, list[Row]], source: Mapping[str, Any]) -> None:
    """`{split}.jsonl` for each split and `source.json`, the account of where it came from.

    Rows stand in the order of their hashes: the sources are sorted by label or name, and the first
    rows of a split (`limit`, `recipe.eval_limit`) are to be a fair sample of it.
    """
    for split, rows in splits.items():
        write_jsonl(folder / f"{split}.jsonl", sorted(rows, key=_place))
    counts = {split: len(rows) for split, rows in splits.items()}
    write_json(folder / "source.json", {**source, "counts": counts})
