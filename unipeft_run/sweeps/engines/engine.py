"""Hydra's launcher, as hydra/launcher= names it: cells in, outcomes or losses out."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from unipeft_run.errors import UserError
from unipeft_run.runs.outcome import Outcome, ended
from unipeft_run.sweeps.engines.local import threads, visible_gpus, workers
from unipeft_run.sweeps.engines.worker import Job, Lost, Notes, Worker

POOL_LOST = ("TerminatedWorkerError", "BrokenProcessPool")  # joblib's


class Engine:
    """Runs `job` on cells, in `config.hydra.launcher`; workers of this machine use `folder`."""

    def __init__(self, loader: object, config: DictConfig, job: Job, folder: Path) -> None:
        self.kind = config.hydra.runtime.choices["hydra/launcher"]
        self.config, self.job, self.folder, self.rounds = config, job, folder, 0
        self.submission = secrets.token_hex(8)
        self.context = HydraContext(config_loader=loader, callbacks=Callbacks(config))
        if self.kind == "ray":
            _needs("ray")
        elif self.kind == "submitit_slurm":
            import_module("unipeft_run.sweeps.engines.slurm").watch_the_queue()

    @property
    def shared_fate(self) -> bool:
        """Whether a killed worker takes the others with it."""
        return self.kind == "joblib"

    def launch(self, cells: Sequence[list[str]]) -> list[Outcome | Lost]:
        """One round: what became of each of `cells`."""
        self.rounds += 1
        notes = Notes(self.folder, self.rounds)
        launcher = self._launcher(self._worker(len(cells), notes))
        try:
            backs = launcher.launch(cells, initial_job_idx=0)
        except Exception as failure:
            if type(failure).__name__ not in POOL_LOST:
                raise
            text = f"a worker is gone: {type(failure).__name__}"
            return [notes.read(number, text) for number in range(len(cells))]
        return [_outcome(back) for back in backs]

    def _worker(self, cells: int, notes: Notes) -> Worker:
        if self.kind != "joblib":
            return Worker(self.job, submission=self.submission)
        gpus, launcher = visible_gpus(), self.config.hydra.launcher
        processes = OmegaConf.select(self.config, "processes", default=1)
        many = workers(launcher.n_jobs, cells, len(gpus), processes)
        with read_write(self.config), open_dict(self.config):
            launcher.n_jobs = many
        return Worker(self.job, notes, threads(many, cells), gpus, self.submission)

    def _launcher(self, worker: Worker) -> Launcher:
        if self.kind != "ray":
            return Plugins.instance().instantiate_launcher(
                hydra_context=self.context, task_function=worker, config=self.config
            )
        from unipeft_run.sweeps.engines.ray import RayLauncher

        launcher = RayLauncher(self.config.hydra.launcher.ray)
        launcher.setup(hydra_context=self.context, task_function=worker, config=self.config)
        return launcher


def _needs(extra: str) -> None:
    try:
        import_module(extra)
    except ImportError:
        raise UserError(f"hydra/launcher={extra} needs pip install 'unipeft[{extra}]'") from None


def _outcome(back: JobReturn) -> Outcome | Lost:
    if back.status is JobStatus.COMPLETED:
        outcome: Outcome = back.return_value
        return outcome
    problem = back._return_value
    return problem if isinstance(problem, Lost) else ended("failed", str(problem))
