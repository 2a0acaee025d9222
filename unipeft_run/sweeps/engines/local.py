"""The machine shared out among the workers of hydra/launcher=joblib."""

from __future__ import annotations

import os
from itertools import takewhile

from unipeft_run.sweeps.engines.worker import THREADS


def visible_gpus() -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES may be made of here."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = (name.strip() for name in given.split(","))
        return tuple(takewhile(lambda name: name not in ("", "-1"), names))
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))


def workers(n_jobs: int, cells: int, gpus: int, processes: int) -> int:
    """How many workers: -1 is one for each group of `processes` GPUs, or for each core.

    Two at least, where one was not asked for: with one, joblib takes this very process, and what
    kills a worker would kill the whole grid.
    """
    from joblib import effective_n_jobs

    if n_jobs == 1:
        return 1
    wanted = gpus // processes if n_jobs == -1 and gpus else effective_n_jobs(n_jobs)
    return max(2, min(wanted, cells))


def threads(workers: int, cells: int) -> int | None:
    """The threads of one cell where so many `workers` share the cores; None if the user chose."""
    from joblib import cpu_count

    return None if THREADS in os.environ else max(1, cpu_count() // min(workers, cells))
