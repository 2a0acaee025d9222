"""Find the files of a split in a folder of local data."""

from __future__ import annotations

import os
import re
from pathlib import Path

from unipeft_run.data.tasks.messages import list_names
from unipeft_run.errors import UserError

# in order of precedence, if a folder holds several files for one split
SUFFIXES = (
    *(".jsonl", ".jsonl.gz", ".json", ".json.gz"),
    *(".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet"),
)
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")


def is_hub_name(data: str) -> bool:
    """Return whether `data` is a hub name (owner/name or owner/name:config) rather than a path."""
    looks_local = data.startswith(("~", ".", "/")) or data.endswith(SUFFIXES)
    return not looks_local and bool(HUB_NAME.fullmatch(data)) and not os.path.exists(data)


def find_split_files(folder: Path, split: str) -> list[Path]:
    """Return the files of `split`: one file, numbered parts, or the files in a folder `split/`.

    [] if there are none. Raises `UserError` if the folder cannot be read or a part is missing.
    """
    try:
        for file in (folder / f"{split}{suffix}" for suffix in SUFFIXES):
            if os.path.lexists(file):
                return [_regular(file)]
        return _parts(folder, split) or _inside(folder / split)
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be read: {error.strerror}") from error


def require_split_files(folder: Path, split: str) -> list[Path]:
    """Return the files of `split`. Raises `UserError` if there are none."""
    if not folder.is_dir():
        if folder.exists():
            raise UserError(f"task.path={folder} is a file: give the folder that holds it")
        raise UserError(f"no folder {folder}: task.path names a folder with {split}.jsonl in it")
    if files := find_split_files(folder, split):
        return files
    present = list_names(sorted(entry.name for entry in folder.iterdir()))
    raise UserError(
        f"no {split}.jsonl, .json, .csv, .tsv or .parquet in {folder}; there is {present}"
    )


def _parts(folder: Path, split: str) -> list[Path]:
    """Return `split-00000-of-00002.parquet` and its siblings, all of them."""
    pattern = re.compile(rf"{re.escape(split)}-(\d+)-of-(\d+)(\.\w+(?:\.gz)?)")
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    matches = [match for match in map(pattern.fullmatch, sorted(names)) if match]
    parts = [match for match in matches if match[3] in SUFFIXES]
    totals = {int(match[2]) for match in parts}
    numbers = sorted(int(match[1]) for match in parts)
    if parts and (len(totals) > 1 or numbers != list(range(max(totals)))):
        raise UserError(
            f"{folder} holds {len(parts)} of the {max(totals)} parts of {split}: "
            f"{', '.join(match[0] for match in parts[:5])}"
        )
    return [_regular(folder / match[0]) for match in parts]


def _inside(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = sorted(file for file in folder.iterdir() if file.name.endswith(SUFFIXES))
    return [_regular(file) for file in files if not file.name.startswith(".")]


def _regular(file: Path) -> Path:
    if not file.is_file():
        kind = "a folder" if file.is_dir() else "a broken link or a special file"
        raise UserError(f"{file} is {kind}; a data file is expected there")
    return file
