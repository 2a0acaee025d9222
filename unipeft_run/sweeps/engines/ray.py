"""hydra/launcher=ray: run each cell as a Ray task. Ray is imported only when used."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from unipeft_run.errors import UserError
from unipeft_run.extensions import VARIABLE
from unipeft_run.sweeps.engines.worker import THREADS, WorkerLost

# For a Ray started here: no dashboard, and little memory for objects, since cells send none.
LOCAL = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
START_TIMEOUTS = {  # seconds; Ray's default of 30 is too short on a busy machine
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_gcs_server_port_wait_time_s": "300",
}
LOSSES = (  # exceptions of Ray
    "WorkerCrashedError",
    "OutOfMemoryError",
    "NodeDiedError",
    "LocalRayletDiedError",
)


class RayLauncher(Launcher):  # type: ignore[misc]
    """Hydra's launcher interface for Ray.

    `settings`: arguments of ray.init and of ray.remote, as in conf/hydra/launcher/ray.yaml.
    """

    def __init__(self, settings: DictConfig) -> None:
        plain: Any = OmegaConf.to_container(settings, resolve=True)
        self.init = {key: value for key, value in plain["init"].items() if value is not None}
        self.remote = {key: value for key, value in plain["remote"].items() if value is not None}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Store what Hydra passes; part of Hydra's interface."""
        self.context, self.job, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run all cells as tasks of Ray and return their results. Raises `UserError`."""
        import ray

        if not ray.is_initialized():
            self._start(ray)
        tasks = [self._submit(ray, *cell) for cell in enumerate(job_overrides, initial_job_idx)]
        return [_result_of(ray, task) for task in tasks]

    def _start(self, ray: Any) -> None:
        address = self.init.get("address") or os.environ.get("RAY_ADDRESS")
        for name, seconds in START_TIMEOUTS.items():
            os.environ.setdefault(name, seconds)
        try:
            ray.init(**(self.init if address else {**LOCAL, **self.init}))
        except (ConnectionError, ValueError, TypeError) as problem:
            reached = f" or reached at {address}" if address else ""
            sentence = str(problem).strip().partition("\n")[0]
            raise UserError(
                f"hydra/launcher=ray: Ray could not be started{reached}: {sentence}"
            ) from None

    def _submit(self, ray: Any, number: int, overrides: Sequence[str]) -> Any:
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        options = {"num_gpus": min(1, ray.cluster_resources().get("GPU", 0)), **self.remote}
        processes = OmegaConf.select(config, "processes", default=1)
        shares = {key: options[key] * processes for key in ("num_cpus", "num_gpus")}
        return ray.remote(**{**options, **shares})(run_cell).remote(
            self.context,
            config,
            self.job,
            Singleton.get_state(),
            Path.cwd(),
            _worker_environment(options["num_cpus"]),
        )


def _worker_environment(cpus: float) -> dict[str, str]:
    """Return the variables of a worker on any machine: its cache, threads and extensions."""
    from unipeft_run.data.cache import cache_root

    threads = os.environ.get(THREADS) or str(max(1, int(cpus)))
    extensions = {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}
    return {"UNIPEFT_CACHE": str(cache_root()), THREADS: threads, **extensions}


def run_cell(
    context: HydraContext,
    config: DictConfig,
    job: TaskFunction,
    state: Any,
    folder: Path,
    environment: Mapping[str, str],
) -> JobReturn:
    """Run one cell in the worker, in the `folder` where the command was typed."""
    os.environ.update(environment)
    os.chdir(folder)
    setup_globals()
    Singleton.set_state(state)
    HydraConfig.instance().set_config(config)
    return run_job(
        hydra_context=context,
        task_function=job,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def _result_of(ray: Any, task: Any) -> JobReturn:
    try:
        return ray.get(task)
    except ray.exceptions.RayError as failure:
        name, text = type(failure).__name__, " ".join(str(failure).split())
        problem = f"a Ray worker was lost: {name}" if name in LOSSES else text
        kind = WorkerLost if name in LOSSES else RuntimeError
        return JobReturn(status=JobStatus.FAILED, _return_value=kind(problem))
