"""Share this machine's GPUs and cores among the workers of hydra/launcher=joblib."""

from __future__ import annotations

import os
from itertools import takewhile

from unipeft_run.errors import UserError
from unipeft_run.sweeps.engines.worker import THREADS


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that may be used, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = (name.strip() for name in given.split(","))
        return tuple(takewhile(lambda name: name not in ("", "-1"), names))
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))


def cells_at_once(n_jobs: int, cells: int, gpus: int, processes: int) -> int:
    """Return how many cells run at a time; `n_jobs=-1`: one per `processes` GPUs, or per core.

    Raises UserError.
    """
    from joblib import effective_n_jobs

    if n_jobs == 0:
        raise UserError("hydra.launcher.n_jobs=0: must be at least 1, or -1 for all GPUs or cores")
    wanted = gpus // processes if n_jobs == -1 and gpus else effective_n_jobs(n_jobs)
    return max(1, min(wanted, cells))


def threads_per_cell(at_once: int) -> int | None:
    """Return a cell's threads when `at_once` share the cores; None if the user has set them."""
    from joblib import cpu_count

    return None if THREADS in os.environ else max(1, cpu_count() // at_once)
