"""Start the processes of one run on this machine, as torchrun does: `processes=2`."""

from __future__ import annotations

import logging
import os
from typing import cast

from omegaconf import DictConfig
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from unipeft_run.interrupts import Interrupted
from unipeft_run.outcome import Outcome

SECONDS_BETWEEN_LOOKS = 0.5


def in_several(cfg: DictConfig) -> Outcome:
    """Run `cfg` in `cfg.processes` processes; what the leading one found."""
    threads = max(1, (os.cpu_count() or 1) // cfg.processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)
    settings = LaunchConfig(
        run_id="unipeft",
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=cfg.processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=SECONDS_BETWEEN_LOOKS,
        start_method="spawn",
    )
    try:
        outcomes = elastic_launch(settings, one_of_them)(cfg)
    except SignalException as stop:  # the processes have got it too
        raise Interrupted(stop.sigval) from None
    return cast("Outcome", outcomes[0])


def one_of_them(cfg: DictConfig) -> Outcome:
    """What each process does."""
    from unipeft_run.cli import train_job

    return train_job(cfg)
