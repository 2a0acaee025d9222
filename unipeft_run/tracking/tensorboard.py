"""TensorBoard: the metrics of every record as event files, one folder per run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipeft_run.tracking import Record, Tracker

INSTALL = "pip install 'unipeft[tensorboard]'"

log = logging.getLogger(__name__)


class TensorBoard(Tracker):
    """Writes the metrics of every record to event files in `folder`/`run_id`.

    A missing or broken package or a folder that cannot be written turns it off; training continues.
    `problem`: why the event files are missing or incomplete; None if they are complete.
    """

    def __init__(self, folder: str | Path, run_id: str) -> None:
        self.path = Path(folder) / run_id
        self.problem: str | None = None
        self._writer: Any = None

    def begin(self, step: int, total: int, evaluated: int | None = None) -> None:
        """Open the event files; TensorBoard hides older events from the next step on."""
        try:
            make_writer = load_writer()
            self._writer = make_writer(str(self.path), purge_step=step + 1 if step else 0)
        except Exception as error:
            self._turn_off(error)

    def log(self, record: Record, step: int) -> None:
        """Write every numeric value of the record under its name."""
        if self._writer is None:
            return
        try:
            for key, value in record.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(key, value, step)
        except Exception as error:
            self._turn_off(error)

    def finish(self, summary: Mapping[str, Any], state: str) -> None:
        """Close the event files."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except Exception as error:
                self._turn_off(error)

    def _turn_off(self, error: Exception) -> None:
        self._writer = None
        self.problem = f"TensorBoard is off for this run: {error}"
        log.warning(self.problem)


def load_writer() -> Any:
    """Return PyTorch's `SummaryWriter`.

    Raises `ImportError`: with the command that installs it, or why importing it fails.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(f"{error}; {INSTALL}") from None
    except Exception as error:  # such as a TypeError of another version of protobuf
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ImportError(f"tensorboard cannot be imported: {reason}") from None
    return SummaryWriter
