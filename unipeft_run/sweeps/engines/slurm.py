"""hydra/launcher=submitit_slurm: detect killed jobs, even if Slurm has no accounting.

submitit asks `sacct`, which knows no jobs without accounting, so it would wait forever for a killed
job. `squeue` always works: a job that has left the queue without a result is lost.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from submitit.core.utils import UncompletedJobError
from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

from unipeft_run.sweeps.engines.worker import WorkerLost

POLL_SECONDS = 30  # of the queue, at most; results on disk are polled every second
GONE = "GONE"  # our state of a job that has left the queue
GPU_KEYS = ("gpus_per_node", "gpus_per_task", "gres", "constraint", "additional_parameters")
_results = SlurmJob.results


class QueueWatcher(SlurmInfoWatcher):  # type: ignore[misc]
    """Reads job states from `squeue`, which lists ended jobs for a few more minutes."""

    def _make_command(self) -> list[str] | None:
        if not self._registered - self._finished:
            return None
        wanted = ["--me", "--array", "--states=all", "--noheader", "--format=%i|%T|%N"]
        return ["squeue", *wanted]

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """Return the states of the jobs in the queue, and `GONE` for ours that have left it."""
        lines = string.decode() if isinstance(string, bytes) else string
        found: dict[str, dict[str, str]] = super().read_info(f"JobID|State|NodeList\n{lines}")
        left = self._registered - self._finished - set(found)
        return {**found, **{job: {"JobID": job, "State": GONE} for job in left}}


def install_queue_watcher() -> None:
    """Make submitit poll the queue, and turn a killed job into a lost cell, not a failed grid."""
    SlurmJob.watcher = QueueWatcher(delay_s=POLL_SECONDS)
    SlurmJob.results = results_of


def warn_without_gpu(launcher: Mapping[str, Any], cells: Sequence[Sequence[str]]) -> None:
    """Print a line to stderr if cells at the paper's scale would train on CPUs."""
    if any(launcher.get(key) for key in GPU_KEYS):
        return
    scales = [word for cell in cells for word in cell if word.startswith("scale=")]
    trains = any(word.startswith("method=") for cell in cells for word in cell)
    if trains and (not scales or "scale=paper" in scales):
        print(
            "hydra/launcher=submitit_slurm: the jobs ask for no GPU, so they train on CPUs; "
            "hydra.launcher.gpus_per_node=1 asks for one",
            file=sys.stderr,
        )


def results_of(job: SlurmJob[JobReturn]) -> list[JobReturn]:
    """Return what the job returned, or a failed `JobReturn` if it left no result."""
    try:
        return _results(job)
    except UncompletedJobError as problem:
        where = f"Slurm job {job.job_id}"
        loss: Exception = WorkerLost(f"{where} ended without a result (state {job.state})")
        if job.state.startswith("CANCELLED"):  # on purpose
            loss = RuntimeError(f"{where} was cancelled")
        elif job.paths.result_pickle.exists():  # a failure outside the run
            loss = RuntimeError(str(problem).strip().splitlines()[-1])
        return [JobReturn(status=JobStatus.FAILED, _return_value=loss)]
