"""Find the examples of a task: in a folder, a miniature source, or on the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from unipeft_run.data.tasks.columns import Columns
from unipeft_run.errors import UserError

if TYPE_CHECKING:  # takes seconds to import
    from datasets import Dataset

Limits = Mapping[str, int | None]


class DataSource(Protocol):
    """The source of a task's examples."""

    def load(self, splits: Sequence[str], columns: Columns, limits: Limits) -> dict[str, Dataset]:
        """Load the first rows of `splits`. Raises `UserError`."""

    def fingerprints(self, splits: Sequence[str]) -> dict[str, str]:
        """Return a content hash of the files of each split; {} for data from the hub."""


@dataclass(frozen=True)
class Source:
    """The data source of one task. `path` takes precedence over `mini`, and `mini` over `hub`.

    Splits in `optional` may be missing from a folder. `hub_splits` maps a split to its name on the
    hub, if that differs.
    """

    task: str
    path: str | Path | None
    mini: str | None
    hub: Mapping[str, str | None] | None
    optional: tuple[str, ...]
    hub_splits: Mapping[str, str]

    def load(self, splits: Sequence[str], columns: Columns, limits: Limits) -> dict[str, Dataset]:
        """Load the first rows of `splits`. Raises `UserError`."""
        if folder := self.folder():
            from unipeft_run.data.tasks.loading import load_folder

            return load_folder(folder, self._present(folder, splits), columns, limits)
        if self.hub is None:
            raise self._no_data()
        from unipeft_run.data.tasks.loading import load_datasets

        return load_datasets(self._hub_datasets(self.hub, splits), columns, limits)

    def fingerprints(self, splits: Sequence[str]) -> dict[str, str]:
        """Return a content hash of the files of each split; {} for data from the hub."""
        from unipeft_run.data.fingerprint import fingerprint_files
        from unipeft_run.data.tasks.split_files import require_split_files

        folder = self.folder()
        if folder is None:
            return {}
        present = self._present(folder, splits)
        return {name: fingerprint_files(require_split_files(folder, name)) for name in present}

    def folder(self) -> Path | None:
        """Return the folder of local or miniature data, fetched if necessary; None for the hub."""
        if self.path is not None:
            return Path(self.path)
        if self.mini is None:
            return None
        from unipeft_run.miniatures.sources import fetch

        return fetch(self.mini)

    def _no_data(self) -> UserError:
        """Return the error for a task that has neither local data nor a data set on the hub."""
        or_mini = ", or scale=mini" if self._has_mini() else ""
        return UserError(f"task {self.task} has no data: set task.path=DIR{or_mini}")

    def _has_mini(self) -> bool:
        from unipeft_run.miniatures.sources import DATA

        return self.task in DATA

    def _present(self, folder: Path, splits: Sequence[str]) -> list[str]:
        """Return `splits` without the optional ones that `folder` lacks."""
        from unipeft_run.data.tasks.split_files import find_split_files

        return [
            name for name in splits if name not in self.optional or find_split_files(folder, name)
        ]

    def _hub_datasets(
        self, hub: Mapping[str, str | None], splits: Sequence[str]
    ) -> dict[str, tuple[str, Dataset]]:
        """Return each split's data set on the hub, with its place for error messages."""
        from unipeft_run.data.tasks.hub import FILES, load_hub

        mini = "scale=mini, or " if self._has_mini() else ""
        datasets = load_hub(self.task, **hub, advice=f"Use {mini}{FILES}.")  # type: ignore[arg-type]
        selected = {}
        for name in splits:
            hub_name = self.hub_splits.get(name, name)
            if hub_name not in datasets:
                available = ", ".join(datasets)
                raise UserError(f"{hub['path']} has no split {hub_name}; it has {available}")
            selected[name] = f"{hub['path']}, split {hub_name}", datasets[hub_name]
        return selected
