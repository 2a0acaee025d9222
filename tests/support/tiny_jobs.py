"""Jobs on two processes that end early; run as a script, it runs one of them by name."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tiny_training import loss_fn, make_trainer
from torch import Tensor, nn

from unipeft_run.config import PlannedRun, compose, plan
from unipeft_run.errors import UserError
from unipeft_run.runs import checkpoint
from unipeft_run.runs.folder import RunFolder
from unipeft_run.runs.lock import RunLock
from unipeft_run.runs.outcome import Outcome, capture_outcome, exit_code
from unipeft_run.sweeps.launch import launch_processes
from unipeft_run.training import checkpoint_store
from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.parallel import all_reduce_sum, broadcast


def config_of(output: Path) -> PlannedRun:
    """Plan a run on two processes."""
    return plan(compose(["task=sst2", "method=mam", "processes=2", f"output={output}"]))


def begin(planned: PlannedRun, held: ExitStack) -> RunFolder:
    """Return the run folder, locked by rank 0; both ranks write their process number to it."""
    path = planned.folder
    folder = RunFolder(path, writes=processes.is_main())
    if processes.is_main():
        held.enter_context(RunLock(path))
    folder.write_text("config.yaml", "seed: 42\n")
    folder.mark("running", step=3)
    broadcast(None)
    (path / f"pid{processes.rank()}").write_text(str(os.getpid()))
    return folder


def together(end: Callable[[PlannedRun], None]) -> Callable[[PlannedRun], Outcome]:
    """Build a job: rank 1 calls `end`, and rank 0 waits for it in an all-reduce."""

    def run(planned: PlannedRun) -> dict[str, Any]:
        with ExitStack() as held:
            folder = begin(planned, held)
            try:
                if processes.rank() == 1:
                    end(planned)
                all_reduce_sum([1.0], torch.device("cpu"))
            except Exception as problem:
                folder.mark("failed", error=str(problem))
                raise
        return {"state": "done"}

    return lambda planned: capture_outcome(lambda: run(planned))


def memory_of_one(planned: PlannedRun) -> Outcome:
    def end(planned: PlannedRun) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    return together(end)(planned)


def killed(planned: PlannedRun) -> Outcome:
    return together(lambda planned: os.kill(os.getpid(), signal.SIGKILL))(planned)


def killed_once(planned: PlannedRun) -> Outcome:
    def end(planned: PlannedRun) -> None:
        mark = Path(planned.config.output) / f"killed{planned.config.seed}"
        if planned.config.seed == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return together(end)(planned)


def in_a_grid(cfg: DictConfig) -> Outcome:
    return launch_processes(plan(cfg), killed_once)


def exits(planned: PlannedRun) -> Outcome:
    return together(lambda planned: sys.exit(7))(planned)


def interrupted_alone(planned: PlannedRun) -> Outcome:
    """Interrupt outside training, where no handler records signals."""
    return together(lambda planned: os.kill(os.getpid(), signal.SIGINT))(planned)


def refused(planned: PlannedRun) -> Outcome:
    def refuse() -> dict[str, Any]:
        raise UserError("there is no such file; see task.path")

    return capture_outcome(refuse)


def trains(planned: PlannedRun) -> Outcome:
    """Train slowly; writing a checkpoint takes two seconds."""
    store = checkpoint.save_checkpoint

    def slowly(path: Path, *given: Any, **named: Any) -> None:
        (path.parents[1] / "saving").touch()
        time.sleep(2)
        store(path, *given, **named)

    def slow_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        time.sleep(0.2)
        return loss_fn(model, batch)

    def run() -> dict[str, Any]:
        with ExitStack() as held:
            folder = begin(planned, held)
            given = {"max_steps": 500, "eval_every": 500, "trackers": [], "folder": folder}
            make_trainer(folder.path, loss_fn=slow_loss, **given).fit()
        return {"state": "done"}

    checkpoint_store.save_checkpoint = slowly  # type: ignore[attr-defined]
    return capture_outcome(run)


def main() -> int:
    """Run the job named by the first argument in the folder of the second; print its outcome."""
    try:
        outcome = launch_processes(config_of(Path(sys.argv[2])), globals()[sys.argv[1]])
    except KeyboardInterrupt as stop:
        print(stop, file=sys.stderr)
        return 128 + getattr(stop, "signum", 0)
    print(json.dumps(outcome))
    return exit_code([outcome])


if __name__ == "__main__":
    sys.exit(main())
