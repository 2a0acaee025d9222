"""The two training states kept in a run folder: the last one, to resume from, and the best."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from unipeft_run.runs.checkpoint import (
    Checkpoint,
    DamagedCheckpoint,
    load_checkpoint,
    load_newest,
    previous_of,
    save_checkpoint,
)
from unipeft_run.runs.folder import RunFolder
from unipeft_run.training.divergence import find_non_finite

LAST, BEST = "checkpoints/last", "checkpoints/best"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointStore:
    """Loads and saves the states in `folder`. Only the main process saves."""

    folder: RunFolder

    def load_last(self) -> Checkpoint | None:
        """Load the state to resume from; None to start from the beginning.

        A state with NaN or infinity, which older versions could save, is skipped with a warning.
        """
        path = self.folder.path / LAST
        newest = load_newest(path)
        if newest is None or _is_finite(newest, path):
            return newest
        return _load_finite(previous_of(path))

    def load_best(self, known: int | None) -> Checkpoint | None:
        """Load the best state; None if there is none yet.

        `known`: the step of the best state according to the last one. The stored one may be of a
        later step, if the run stopped before it could save the last state too; it will reach that
        step again. Raises `DamagedCheckpoint` if it is missing or of an earlier step.
        """
        if known is None:
            return None
        path = self.folder.path / BEST
        best = load_newest(path)
        if best is None:
            raise DamagedCheckpoint(f"{path} is missing; start afresh (force=true)")
        if (step := best.state.get("step", known)) < known:
            raise DamagedCheckpoint(
                f"{path} holds step {step}, but the best evaluation was at step {known}; "
                "start afresh (force=true)"
            )
        return best

    def save_last(self, content: Checkpoint) -> None:
        """Save the state to resume from, and keep the one before it."""
        self._save(LAST, content, keep_previous=True)

    def save_best(self, content: Checkpoint) -> None:
        """Save the best state in place of the earlier one."""
        self._save(BEST, content, keep_previous=False)

    def _save(self, name: str, content: Checkpoint, *, keep_previous: bool) -> None:
        if self.folder.writes:
            path, check = self.folder.path / name, self.folder.check
            save_checkpoint(path, content, keep_previous=keep_previous, check=check)


def _load_finite(path: Path) -> Checkpoint | None:
    try:
        content = load_checkpoint(path)
    except DamagedCheckpoint:
        return None
    return content if _is_finite(content, path) else None


def _is_finite(content: Checkpoint, path: Path) -> bool:
    name = find_non_finite(content.tensors)
    if name is not None:
        log.warning("%s is not finite (%s), and is not used", path, name)
    return name is None
