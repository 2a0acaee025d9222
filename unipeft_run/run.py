"""The straight path: a configuration becomes a trained, evaluated, written-down model.

Nothing heavy is imported until the data and the backbone are known to be there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unipeft_run import config as configuration
from unipeft_run.errors import UserError
from unipeft_run.inputs import Inputs, gather
from unipeft_run.runs.failures import describe_failure
from unipeft_run.runs.folder import RunFolder, read_object
from unipeft_run.runs.lock import RunLock, RunningElsewhere
from unipeft_run.training.distributed import processes

Metrics = dict[str, Any]


def run(cfg: DictConfig) -> dict[str, Any]:
    """Train, select, test and write down one configuration; a finished one is only read.

    Returns the run's metrics with `state`: `done`, `skipped` where it was there already,
    `diverged` or `running elsewhere` with the `error`. Raises UserError for what the user can mend.
    """
    plain, path = configuration.resolve(cfg), configuration.run_folder(cfg)
    if skipped := _agreed(lambda: _done(plain, path)):
        return skipped
    inputs = gather(plain)
    folder = RunFolder(path, writes=processes.leads())
    with ExitStack() as held:
        taken = _agreed(lambda: _taken(folder, held) or _done(plain, path))
        return taken or _train(plain, inputs, folder)


def _agreed(look: Callable[[], Metrics | None]) -> Metrics | None:
    """What the leading process sees, in all processes of the run."""
    seen = look() if processes.leads() else None
    if processes.count() == 1:
        return seen
    from unipeft_run.training.distributed.parallel import from_lead

    return from_lead(seen)


def _taken(folder: RunFolder, held: ExitStack) -> Metrics | None:
    """Take the lock, until `held` closes; who has it, where that is another."""
    try:
        folder.guard = held.enter_context(RunLock(folder.path)).check
    except RunningElsewhere as owner:
        return {"state": "running elsewhere", "error": str(owner)}
    return None


def _done(cfg: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """The metrics that are there already; None without them, and where they are not wanted."""
    metrics = {} if cfg["force"] else read_object(path / "metrics.json")
    if not metrics:
        return None
    print(f"done already: {path} (force=true starts afresh)")
    return {**metrics, "state": "skipped"}


def _train(cfg: Mapping[str, Any], inputs: Inputs, folder: RunFolder) -> dict[str, Any]:
    from unipeft_run.experiment import Experiment
    from unipeft_run.training.trainer import Diverged

    if cfg["force"]:
        folder.clear()
    # at once: a run that ends before it begins to train can be listed, and tried again
    folder.write_text("config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(cfg))))
    try:
        return {**Experiment(cfg, inputs).train(folder), "state": "done"}
    except Diverged as problem:
        return {"state": "diverged", "error": f"{problem}; the last checkpoint is kept"}
    except Exception as problem:
        folder.mark("failed", error=describe_failure(problem))
        raise


def evaluate(folder: Path, split: str = "test", allow: Sequence[str] = ()) -> dict[str, float]:
    """The metrics of a finished run on `split`, from its stored delta alone.

    `allow`: prefixes of classes outside this package that the run's configuration may name.
    Raises UserError for a folder that holds no finished run, and for an unknown split.
    """
    cfg = configuration.load(folder, allow)
    inputs = gather(cfg)
    if split not in inputs.splits:
        raise UserError(f"no split {split!r}: have {', '.join(inputs.splits)}")
    from accelerate import PartialState

    from unipeft_run.deltas.delta_file import load_delta
    from unipeft_run.experiment import Experiment, folded
    from unipeft_run.training.precision import evaluable

    precision = evaluable(cfg["precision"])
    stored = Experiment({**cfg, **folded(cfg), "precision": precision}, inputs)
    load_delta(stored.model, folder)
    stored.model.to(PartialState().device)
    return stored.evaluator(stored.model, split).metrics
