"""What happens around a cell in the process that runs it. Imports nothing heavy."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from unipeft_run.config import plan
from unipeft_run.runs.folder import RunFolder
from unipeft_run.runs.outcome import Outcome

Job = Callable[[DictConfig], Outcome]
THREADS = "OMP_NUM_THREADS"
FORCED = ".forced"  # in a run folder: the submission that began the run with force=true
_slots: dict[Path, int] = {}  # of this process


class Lost(Exception):
    """A cell came back without an outcome: its process is gone.

    held: whether that process had begun the cell.
    """

    def __init__(self, text: str, held: bool = True) -> None:
        super().__init__(text)
        self.held = held


@dataclass(frozen=True)
class Notes:
    """What the workers of one machine write down about one round of cells, in a folder."""

    folder: Path
    round: int

    def begin(self, number: int) -> None:
        """Cell `number` of the round is in this worker's hands."""
        self._file(number, "begun").touch()

    def end(self, number: int, outcome: Outcome) -> None:
        """Cell `number` has ended."""
        aside = self._file(number, "part")
        aside.write_text(json.dumps(outcome))
        aside.rename(self._file(number, "ended"))

    def read(self, number: int, problem: str) -> Outcome | Lost:
        """The outcome of cell `number`, or `problem` where it has none."""
        ended = self._file(number, "ended")
        if ended.exists():
            outcome: Outcome = json.loads(ended.read_text())
            return outcome
        return Lost(problem, held=self._file(number, "begun").exists())

    def slot(self) -> int:
        """The lowest number that no other living worker has; this process keeps it to its end."""
        if self.folder not in _slots:
            _slots[self.folder] = next(n for n in count() if self._claimed(n))
        return _slots[self.folder]

    def _claimed(self, number: int) -> bool:
        import fcntl

        file = os.open(self.folder / f"slot{number}", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        return True  # and the file stays open: however the process ends, the lock ends with it

    def _file(self, number: int, what: str) -> Path:
        return self.folder / f"round{self.round}.cell{number}.{what}"


@dataclass(frozen=True)
class Worker:
    """`job` as an engine runs it; plain data, so that it can be sent to a process.

    threads: for one cell (None: what the environment says, or Slurm). gpus: of the machine, to be
    shared out among the workers. Both are settled before `job` imports torch. submission: a name
    that all workers of one command have, also where a queue starts their jobs a second time.
    """

    job: Job
    notes: Notes | None = None
    threads: int | None = None
    gpus: tuple[str, ...] = ()
    submission: str = ""

    def __call__(self, cfg: DictConfig) -> Outcome:
        self._settle(OmegaConf.select(cfg, "processes", default=1))
        if OmegaConf.select(cfg, "force", default=False):
            self._force_once(cfg)
        if self.notes is None:
            return self.job(cfg)
        number = HydraConfig.get().job.num
        self.notes.begin(number)
        outcome = self.job(cfg)
        self.notes.end(number, outcome)
        return outcome

    def _force_once(self, cfg: DictConfig) -> None:
        """A run that this submission has cleared before goes on: its worker was lost, or requeued.

        The mark is older than the configuration that a run writes when it is cleared, and by the
        same clock.
        """
        folder = RunFolder(plan(cfg).folder)
        mark, config = folder.path / FORCED, folder.path / "config.yaml"
        if not (mark.exists() and mark.read_text() == self.submission):
            folder.write_text(FORCED, self.submission)
        elif config.exists() and config.stat().st_mtime_ns >= mark.stat().st_mtime_ns:
            cfg.force = False

    def _settle(self, processes: int) -> None:
        threads = self.threads
        if threads is None and THREADS not in os.environ:
            threads = int(os.environ.get("SLURM_CPUS_PER_TASK", 0))
        if threads:
            os.environ[THREADS] = str(max(1, threads // processes))
        if self.gpus and self.notes:
            first = self.notes.slot() * processes
            mine = (self.gpus[n % len(self.gpus)] for n in range(first, first + processes))
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(mine))
        # joblib leaves its own way of starting processes as the default, which no child knows
        if multiprocessing.get_start_method(allow_none=True) == "loky":
            multiprocessing.set_start_method(None, force=True)
