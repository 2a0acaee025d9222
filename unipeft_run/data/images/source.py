"""Find the examples of a task on images: in a folder, a miniature source, or on the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unipeft_run.data.fingerprint import combine, fingerprint_many
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.labels import check_order
from unipeft_run.data.tasks.source import Limits, Source

if TYPE_CHECKING:  # these take long to import
    import pyarrow as pa
    from datasets import Dataset

    from unipeft_run.data.tasks.split_tables import Orders


@dataclass(frozen=True)
class ImageSource(Source):
    """The data source of a task on images; `columns.images` names their column.

    On the hub, the last `held_out` training examples, if any, are the validation split.
    """

    held_out: int = 0

    def load(self, splits: Sequence[str], columns: Columns, limits: Limits) -> dict[str, Dataset]:
        """Load the first rows of `splits`. Raises `UserError`."""
        read = {s: self._read(s, columns, limits.get(s)) for s in self._available(splits)}
        return check_tables(read)

    def _available(self, splits: Sequence[str]) -> list[str]:
        folder = self.folder()
        return list(splits) if folder is None else self._present(folder, splits)

    def _read(self, split: str, columns: Columns, limit: int | None) -> tuple[pa.Table, Orders]:
        from unipeft_run.data.images.reading import read_image_files
        from unipeft_run.data.tasks.split_files import require_split_files

        if folder := self.folder():
            return read_image_files(require_split_files(folder, split), columns, limit)
        if self.hub is None:
            raise self._no_data()
        where, dataset = self._find_on_hub(split)
        return _read_dataset(dataset, columns, limit, where)

    def _find_on_hub(self, split: str) -> tuple[str, Dataset]:
        assert self.hub is not None
        if not self.held_out or split == "test":
            return self._hub_datasets(self.hub, [split])[split]
        where, dataset = self._hub_datasets(self.hub, ["train"])["train"]
        first = len(dataset) - self.held_out
        rows = range(first) if split == "train" else range(first, len(dataset))
        return where, dataset.select(rows)

    def fingerprints(self, splits: Sequence[str]) -> dict[str, str]:
        """Return a content hash of each split's files, images included; {} for the hub."""
        from unipeft_run.data.tasks.split_files import require_split_files

        hashes = super().fingerprints(splits)
        for split, digest in hashes.items():
            folder = self.folder()
            assert folder is not None
            names = list(_named_images(require_split_files(folder, split)))
            if names:
                hashes[split] = combine({"rows": digest, "images": fingerprint_many(names)})
        return hashes


def check_tables(read: Mapping[str, tuple[pa.Table, Orders]]) -> dict[str, Dataset]:
    """Check that all splits number their classes alike, and return them as data sets."""
    from datasets import Dataset

    check_order([order for _, orders in read.values() for order in orders])
    return {split: Dataset(table) for split, (table, _) in read.items()}


def _read_dataset(
    dataset: Dataset, columns: Columns, limit: int | None, where: str
) -> tuple[pa.Table, Orders]:
    from unipeft_run.data.images.reading import check_image_table
    from unipeft_run.data.tasks.loading import recorded_names

    names = recorded_names(dataset, columns.label_spellings)
    if limit is not None and limit < len(dataset):
        dataset = dataset.select(range(limit))
    table = dataset.with_format("arrow")[:]
    checked, in_order = check_image_table(table, columns, names, where)
    return checked, ((where, in_order),)


def _named_images(files: Sequence[Path]) -> Iterator[Path]:
    """Yield every string in the records of `files` that names an image file beside it."""
    from unipeft_run.data.tasks.records import read_records

    for file in files:
        for _, record in read_records(file) if file.suffix != ".parquet" else ():
            for value in record.values():
                for name in value if isinstance(value, list) else [value]:
                    if isinstance(name, str) and name and (path := file.parent / name).is_file():
                        yield path
