"""TensorBoard: the same numbers as event files, one folder a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipeft_run.tracking import Record, Tracker

log = logging.getLogger(__name__)


class TensorBoard(Tracker):
    """Writes the numbers of every record to event files in `folder`/`run_id`."""

    def __init__(self, folder: str | Path, run_id: str) -> None:
        self._path = Path(folder) / run_id
        self._writer: Any = None

    def begin(self, step: int, total: int, evaluated: int | None = None) -> None:
        """Open the files; what a stopped run wrote after its checkpoint is hidden."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            log.warning("TensorBoard is off for this run: %s", error)
            return
        self._writer = SummaryWriter(str(self._path), purge_step=step + 1 if step else None)  # type: ignore[no-untyped-call]

    def log(self, record: Record, step: int) -> None:
        """Write every number of the record under its name."""
        if self._writer is not None:
            for key, value in record.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(key, value, step)

    def finish(self, summary: Mapping[str, Any], state: str) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
