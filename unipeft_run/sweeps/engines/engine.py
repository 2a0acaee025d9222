"""The launcher named by hydra/launcher=: runs cells, returns outcomes or lost workers."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from unipeft_run.config.messages import shorten
from unipeft_run.errors import UserError
from unipeft_run.runs.folder import make_usable
from unipeft_run.runs.outcome import Outcome, make_outcome
from unipeft_run.sweeps.engines.announcer import Announcer
from unipeft_run.sweeps.engines.interrupts import CAN_HOLD, hold_signals
from unipeft_run.sweeps.engines.local import cells_at_once, threads_per_cell, visible_gpus
from unipeft_run.sweeps.engines.worker import Job, RoundLog, Worker, WorkerLost
from unipeft_run.sweeps.table import Cell

POOL_LOST = ("TerminatedWorkerError", "BrokenProcessPool")  # exceptions of joblib


class Engine:
    """Runs `job` on cells with `config.hydra.launcher`; local workers report through `folder`.

    `cells`: the cells of a grid that can run, to print its progress, and the `labels` of each.
    `finished`: which of them have a finished run.
    """

    def __init__(
        self,
        loader: object,
        config: DictConfig,
        job: Job,
        folder: Path,
        cells: Sequence[Cell] = (),
        labels: Sequence[str] = (),
        finished: Collection[int] = (),
    ) -> None:
        self.cells, self.labels, self.finished = cells, labels, finished
        self.kind = config.hydra.runtime.choices["hydra/launcher"]
        self.n_jobs = config.hydra.launcher.get("n_jobs")
        self.pre_dispatch = config.hydra.launcher.get("pre_dispatch")
        self.config, self.job, self.folder, self.rounds = config, job, folder, 0
        self.submission = secrets.token_hex(8)
        self.context = HydraContext(config_loader=loader, callbacks=_build_callbacks(config))
        if self.kind == "ray":
            _require("ray")
        elif self.kind == "submitit_slurm":
            slurm = import_module("unipeft_run.sweeps.engines.slurm")
            slurm.install_queue_watcher()
            slurm.warn_without_gpu(config.hydra.launcher, cells)

    @property
    def stop(self) -> Path | None:
        """The file that tells workers to stop; None if a signal to the command ends its cells."""
        is_pool = self.kind == "joblib" and self.n_jobs != 1
        return self.folder / "stop" if is_pool and CAN_HOLD else None

    @property
    def shared_fate(self) -> bool:
        """True if one killed worker terminates the others."""
        return self.kind == "joblib"

    def launch(self, cells: Sequence[Cell]) -> list[Outcome | WorkerLost]:
        """Run one round; return an outcome or a loss for each of `cells`."""
        self.rounds += 1
        if self.rounds == 1:
            _make_sweep_folder(self.config)
        log = RoundLog(self.folder, self.rounds)
        launcher = self._build_launcher(self._build_worker(cells, log))
        try:
            with hold_signals(self.stop) if self.stop else nullcontext():
                results = launcher.launch(cells, initial_job_idx=0)
        except Exception as failure:
            if type(failure).__name__ not in POOL_LOST:
                raise
            text = f"a worker was lost: {type(failure).__name__}"
            return [log.read(number, text) for number in range(len(cells))]
        return [_outcome_of(result) for result in results]

    def _build_worker(self, cells: Sequence[Cell], log: RoundLog) -> Worker:
        if self.kind == "basic":
            announcer = self._build_announcer(cells, workers=1)
            return Worker(self.job, log, submission=self.submission, announcer=announcer)
        if self.kind != "joblib":
            return Worker(self.job, submission=self.submission)
        gpus = visible_gpus()
        processes = OmegaConf.select(self.config, "processes", default=1)
        at_once = cells_at_once(self.n_jobs, len(cells), len(gpus), processes)
        self._size_pool(at_once)
        announcer = self._build_announcer(cells, at_once)
        threads = threads_per_cell(at_once)
        return Worker(self.job, log, threads, gpus, self.submission, announcer, self.stop)

    def _size_pool(self, at_once: int) -> None:
        """Set joblib's number of workers: two for one cell at a time, unless `n_jobs` is 1.

        With one worker, joblib runs cells in this process, so whatever kills a cell kills the
        grid. `pre_dispatch` then hands out the next cell only when the last one has ended.
        """
        launcher = self.config.hydra.launcher
        with read_write(self.config), open_dict(self.config):
            launcher.n_jobs = at_once if self.n_jobs == 1 else max(2, at_once)
            launcher.pre_dispatch = 1 if at_once == 1 else self.pre_dispatch

    def _build_announcer(self, cells: Sequence[Cell], workers: int) -> Announcer | None:
        if not self.cells:
            return None
        numbers = [self.cells.index(cell) for cell in cells]
        return Announcer(self.labels, numbers, self.finished, workers, self.folder)

    def _build_launcher(self, worker: Worker) -> Launcher:
        if self.kind != "ray":
            return Plugins.instance().instantiate_launcher(
                hydra_context=self.context, task_function=worker, config=self.config
            )
        from unipeft_run.sweeps.engines.ray import RayLauncher

        launcher = RayLauncher(self.config.hydra.launcher.ray)
        launcher.setup(hydra_context=self.context, task_function=worker, config=self.config)
        return launcher


def _build_callbacks(config: DictConfig) -> Callbacks:
    try:
        return Callbacks(config)
    except HydraException as error:
        reason = str(error).partition(", set env var")[0]
        raise UserError(f"hydra.callbacks: {shorten(reason, 160)}") from None


def _make_sweep_folder(config: DictConfig) -> None:
    """Make hydra.sweep.dir, by default the output folder, in which launchers work.

    Launchers do not expand ~, and compose the configuration of each cell again.
    """
    folder = Path(str(config.hydra.sweep.dir)).expanduser()
    make_usable(folder, "output")
    text = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    with read_write(config), open_dict(config):
        config.hydra.sweep.dir = str(folder)
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{text}'")


def _require(extra: str) -> None:
    try:
        import_module(extra)
    except ImportError:
        raise UserError(f"hydra/launcher={extra} needs pip install 'unipeft[{extra}]'") from None


def _outcome_of(result: JobReturn) -> Outcome | WorkerLost:
    if result.status is JobStatus.COMPLETED:
        outcome: Outcome = result.return_value
        return outcome
    problem = result._return_value
    return problem if isinstance(problem, WorkerLost) else make_outcome("failed", str(problem))
