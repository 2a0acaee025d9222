"""Run a cell in a worker process, with its share of GPUs and threads. Imports nothing heavy."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.commands.signals import raise_on_sigterm
from unipeft_run.config import plan
from unipeft_run.runs.folder import RunFolder
from unipeft_run.runs.outcome import Outcome, make_outcome
from unipeft_run.sweeps.engines.announcer import Announcer
from unipeft_run.sweeps.engines.interrupts import block_signals, interrupt_on
from unipeft_run.training.distributed.environment import prepare_environment

Job = Callable[[DictConfig], Outcome]
THREADS = "OMP_NUM_THREADS"
FORCED = ".forced"  # in a run folder: the last submission that began the run with force=true
_slots: dict[Path, int] = {}  # of this process


class WorkerLost(Exception):
    """The process of a cell died before it returned an outcome.

    `begun`: whether that process had begun the cell.
    """

    def __init__(self, text: str, begun: bool = True) -> None:
        super().__init__(text)
        self.begun = begun


@dataclass(frozen=True)
class RoundLog:
    """Files in which local workers record which cells of a round they began and ended."""

    folder: Path
    round: int

    def begin(self, number: int) -> None:
        """Record that this worker begins cell `number`."""
        self._file(number, "begun").touch()

    def end(self, number: int, outcome: Outcome) -> None:
        """Record the outcome of cell `number`."""
        part = self._file(number, "part")
        part.write_text(json.dumps(outcome))
        part.rename(self._file(number, "ended"))

    def read(self, number: int, problem: str) -> Outcome | WorkerLost:
        """Return the outcome of cell `number`, or a loss with the text `problem`."""
        ended = self._file(number, "ended")
        if ended.exists():
            outcome: Outcome = json.loads(ended.read_text())
            return outcome
        return WorkerLost(problem, begun=self._file(number, "begun").exists())

    def slot(self) -> int:
        """Return the lowest number that no other live worker holds; keep it until exit."""
        if self.folder not in _slots:
            _slots[self.folder] = next(n for n in count() if self._claim(n))
        return _slots[self.folder]

    def _claim(self, number: int) -> bool:
        import fcntl

        file = os.open(self.folder / f"slot{number}", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        return True  # the file stays open, and its lock is held until the process ends

    def _file(self, number: int, what: str) -> Path:
        return self.folder / f"round{self.round}.cell{number}.{what}"


@dataclass(frozen=True)
class Worker:
    """Callable that runs `job` on a cell; plain data, so that it can be pickled.

    `threads`: of one cell (None: as in the environment, or as Slurm says). `gpus`: the machine's,
    shared among the workers. Both take effect before `job` imports torch. `submission`: identifies
    the command, also for jobs that a queue starts a second time. `announcer`: prints the progress
    of the grid; needs `log`. `stop`: a file that appears when the grid is interrupted.
    """

    job: Job
    log: RoundLog | None = None
    threads: int | None = None
    gpus: tuple[str, ...] = ()
    submission: str = ""
    announcer: Announcer | None = None
    stop: Path | None = None

    def __call__(self, cfg: DictConfig) -> Outcome:
        if self.stop and self.stop.exists():
            return make_outcome("interrupted")
        ignore_broken_pipes()
        prepare_environment()
        self._assign_resources(OmegaConf.select(cfg, "processes", default=1))
        if OmegaConf.select(cfg, "force", default=False):
            self._force_once(cfg)
        if self.log is None:
            return self._run_job(cfg)
        number = HydraConfig.get().job.num
        self.log.begin(number)
        with self.announcer.announce_begin(number) if self.announcer else nullcontext():
            outcome = self._run_job(cfg)
        if self.gpus:
            _free_gpu_memory()
        self.log.end(number, outcome)
        if self.announcer:
            self.announcer.announce_end(number, outcome)
        return outcome

    def _run_job(self, cfg: DictConfig) -> Outcome:
        """Run the cell; if `stop` appears, it is interrupted as if by a signal."""
        if self.stop is None:
            return self.job(cfg)
        block_signals()
        try:
            with raise_on_sigterm(), interrupt_on(self.stop):
                return self.job(cfg)
        except KeyboardInterrupt as stop:
            return make_outcome("interrupted", str(stop))

    def _force_once(self, cfg: DictConfig) -> None:
        """Unset `force` if this submission has already cleared the run, and lost its worker.

        The mark is written before the configuration of a cleared run, on the same disk: if the
        configuration is newer than the mark, the run has been cleared.
        """
        folder = RunFolder(plan(cfg).folder)
        mark, config = folder.path / FORCED, folder.path / "config.yaml"
        if not (mark.exists() and mark.read_text() == self.submission):
            folder.write_text(FORCED, self.submission)
        elif config.exists() and config.stat().st_mtime_ns >= mark.stat().st_mtime_ns:
            cfg.force = False

    def _assign_resources(self, processes: int) -> None:
        threads = self.threads
        if threads is None and THREADS not in os.environ:
            threads = int(os.environ.get("SLURM_CPUS_PER_TASK", 0))
        if threads:
            os.environ[THREADS] = str(max(1, threads // processes))
        if self.gpus and self.log:
            first = self.log.slot() * processes
            mine = (self.gpus[n % len(self.gpus)] for n in range(first, first + processes))
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(mine))
        # joblib sets its own start method as the default, which child processes do not know
        if multiprocessing.get_start_method(allow_none=True) == "loky":
            multiprocessing.set_start_method(None, force=True)


def _free_gpu_memory() -> None:
    """Return the GPU memory that torch caches: another worker may run the next cell there."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
