"""The training states that a run folder keeps: the last one, to go on from, and the best."""

from __future__ import annotations

from dataclasses import dataclass

from unipeft_run.runs.checkpoint import Checkpoint, DamagedCheckpoint, load_newest, save_checkpoint
from unipeft_run.runs.folder import RunFolder

LAST, BEST = "checkpoints/last", "checkpoints/best"


@dataclass(frozen=True)
class StoredStates:
    """The states in `folder`; only the process that writes it keeps any."""

    folder: RunFolder

    def last(self) -> Checkpoint | None:
        return load_newest(self.folder.path / LAST)

    def best(self, known: int | None) -> Checkpoint | None:
        """The best state; None before the first. `known`: the step that the last state has it at.

        A run that stopped between keeping the best and the last, or whose last one is damaged,
        may find a later and better one than it knows of, and comes by there again. Raises
        `DamagedCheckpoint` for an earlier one, and for none.
        """
        if known is None:
            return None
        path = self.folder.path / BEST
        best = load_newest(path)
        if best is None:
            raise DamagedCheckpoint(f"{path} is gone; start afresh (force=true)")
        if (step := best.state.get("step", known)) < known:
            raise DamagedCheckpoint(
                f"{path} is of step {step}, the best was step {known}; start afresh (force=true)"
            )
        return best

    def keep_last(self, content: Checkpoint) -> None:
        self._keep(LAST, content, keep_previous=True)

    def keep_best(self, content: Checkpoint) -> None:
        self._keep(BEST, content, keep_previous=False)

    def _keep(self, name: str, content: Checkpoint, *, keep_previous: bool) -> None:
        if self.folder.writes:
            path, check = self.folder.path / name, self.folder.check
            save_checkpoint(path, content, keep_previous=keep_previous, check=check)
