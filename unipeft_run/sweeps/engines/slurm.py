"""hydra/launcher=submitit_slurm where a job is killed: with accounts (sacct) or without.

submitit asks `sacct`, which knows nothing where Slurm keeps no accounts: it would wait for a killed
job for ever. The queue is always there, and a job that has left it without a result is lost.
"""

from __future__ import annotations

from hydra.core.utils import JobReturn, JobStatus
from submitit.core.utils import UncompletedJobError
from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

from unipeft_run.sweeps.engines.worker import Lost

SECONDS_BETWEEN_LOOKS = 30  # at most; results are looked for every second, on the disk
GONE = "GONE"  # from the queue
_results = SlurmJob.results


class QueueWatcher(SlurmInfoWatcher):  # type: ignore[misc]
    """The states of jobs from `squeue`, which names those that have ended for some minutes more."""

    def _make_command(self) -> list[str] | None:
        if not self._registered - self._finished:
            return None
        wanted = ["--me", "--array", "--states=all", "--noheader", "--format=%i|%T|%N"]
        return ["squeue", *wanted]

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """The state of every job in the queue, and of ours that have left it."""
        lines = string.decode() if isinstance(string, bytes) else string
        found: dict[str, dict[str, str]] = super().read_info(f"JobID|State|NodeList\n{lines}")
        left = self._registered - self._finished - set(found)
        return {**found, **{job: {"JobID": job, "State": GONE} for job in left}}


def watch_the_queue() -> None:
    """From now on submitit looks at the queue, and a lost job is a cell's loss, not the grid's."""
    SlurmJob.watcher = QueueWatcher(delay_s=SECONDS_BETWEEN_LOOKS)
    SlurmJob.results = results


def results(job: SlurmJob[JobReturn]) -> list[JobReturn]:
    """What the job returned; a failed `JobReturn` if it ended without a word."""
    try:
        return _results(job)
    except UncompletedJobError as problem:
        where = f"Slurm job {job.job_id}"
        loss: Exception = Lost(f"{where} ended without a result (state {job.state})")
        if job.state.startswith("CANCELLED"):  # someone wanted it so
            loss = RuntimeError(f"{where} was cancelled")
        elif job.paths.result_pickle.exists():  # a failure outside of the run
            loss = RuntimeError(str(problem).strip().splitlines()[-1])
        return [JobReturn(status=JobStatus.FAILED, _return_value=loss)]
