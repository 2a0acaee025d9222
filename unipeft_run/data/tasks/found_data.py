"""Find own data: a file, a folder with a file per split, a saved data set, or a hub name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from unipeft_run.data.fingerprint import fingerprint, fingerprint_files
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.messages import list_names
from unipeft_run.data.tasks.split_files import SUFFIXES, find_split_files, is_hub_name
from unipeft_run.errors import UserError

if TYPE_CHECKING:  # these take long to import, and a cached summary needs neither
    import pyarrow as pa
    from datasets import Dataset

    from unipeft_run.data.tasks.split_tables import Orders

NAMES = {  # a split -> its names in files and data sets, in order of precedence
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test",),
}
FORMATS = "CSV, TSV, JSON Lines (.jsonl), each also as .gz, or Parquet"


class SplitData(Protocol):
    """The examples of one split."""

    def __hash__(self) -> int:
        """Hash the place, as a key of caches."""

    def read(self, columns: Columns, limit: int | None) -> tuple[pa.Table, Orders]:
        """Read the first `limit` examples. Raises `UserError`."""

    def is_unlabelled(self, label: str) -> bool:
        """Return whether no row has a label in the column `label` of named classes."""

    def fingerprint(self) -> str | None:
        """Hash the content; None for data on the hub."""


@dataclass(frozen=True)
class FileSplit:
    """A split in one or several files."""

    files: tuple[Path, ...]

    def read(self, columns: Columns, limit: int | None) -> tuple[pa.Table, Orders]:
        from unipeft_run.data.tasks.split_tables import read_files

        return read_files(self.files, columns, limit)

    def is_unlabelled(self, label: str) -> bool:
        if any(file.suffix != ".parquet" for file in self.files):
            return False
        from unipeft_run.data.tasks.tables import is_unlabelled_file

        return all(is_unlabelled_file(file, label) for file in self.files)

    def fingerprint(self) -> str:
        return fingerprint_files(self.files)


@dataclass(frozen=True)
class DatasetSplit:
    """A split of a data set that `datasets` reads. `folder` holds it, unless it is on the hub."""

    dataset: Dataset
    where: str
    folder: Path | None = None

    def read(self, columns: Columns, limit: int | None) -> tuple[pa.Table, Orders]:
        from unipeft_run.data.tasks.loading import read_dataset

        table, in_order = read_dataset(self.dataset, columns, limit, self.where)
        return table, ((self.where, in_order),)

    def is_unlabelled(self, label: str) -> bool:
        from unipeft_run.data.tasks.loading import is_unlabelled_dataset

        return is_unlabelled_dataset(self.dataset, label)

    def fingerprint(self) -> str | None:
        return None if self.folder is None else fingerprint(self.folder)


def find_data(data: str, task: str) -> Mapping[str, SplitData]:
    """Return the splits that `data` has; a single file is all "train". Raises `UserError`."""
    if is_hub_name(data):
        return _find_on_hub(data, task)
    path = Path(data)
    if path.is_dir():
        return _find_in_folder(path)
    if not path.is_file():
        raise UserError(_explain_no_file(path))
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"task.data={path}: unknown format; give {FORMATS}")
    return {"train": FileSplit((path,))}


def _find_in_folder(folder: Path) -> Mapping[str, SplitData]:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _find_saved(folder)
    found: dict[str, SplitData] = {}
    for split, names in NAMES.items():
        files = next(filter(None, (find_split_files(folder, name) for name in names)), [])
        if files:
            found[split] = FileSplit(tuple(files))
    if not found:
        present = sorted(entry.name for entry in folder.iterdir())
        raise UserError(
            f"task.data={folder}: no train, validation or test file there; there is "
            f"{list_names(present)}\nGive a file, or name the files train.csv, test.csv, ..."
        )
    return found


def _find_saved(folder: Path) -> Mapping[str, SplitData]:
    """Return the splits of a folder that `save_to_disk` wrote."""
    import pyarrow as pa
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"task.data={folder}: not a readable saved data set: {reason}") from error
    if not isinstance(saved, DatasetDict):
        return {"train": DatasetSplit(saved, str(folder), folder)}
    places = {name: DatasetSplit(saved[name], str(folder / name), folder / name) for name in saved}
    return _named_splits(places, str(folder))


@lru_cache(maxsize=16)
def _find_on_hub(data: str, task: str) -> Mapping[str, SplitData]:
    from unipeft_run.data.tasks.hub import load_hub

    path, _, name = data.partition(":")
    advice = f"Give a local file instead, as in data=FILE ({FORMATS})."
    loaded = load_hub(task, path=path, name=name or None, advice=advice)
    return _named_splits(
        {split: DatasetSplit(loaded[split], f"{data}, split {split}") for split in loaded}, data
    )


def _named_splits(found: Mapping[str, Any], where: str) -> Mapping[str, SplitData]:
    """Rename the splits to ours; a single split of another name is "train". Raises `UserError`."""
    if len(found) == 1:
        return {"train": next(iter(found.values()))}
    ours = {s: next((found[n] for n in names if n in found), None) for s, names in NAMES.items()}
    if ours["train"] is None and ours["test"] is None:
        raise UserError(f"task.data={where} has the splits {list_names(list(found))}, none of ours")
    return {split: data for split, data in ours.items() if data is not None}


def _explain_no_file(path: Path) -> str:
    folder = path.parent
    entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    if near := get_close_matches(path.name, entries, n=1):
        return f"task.data={path}: there is no such file (did you mean {folder / near[0]}?)"
    return (
        f"task.data={path}: there is no such file or folder; give {FORMATS}, "
        "a folder, or a hub name such as owner/name"
    )
