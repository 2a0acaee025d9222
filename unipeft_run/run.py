"""The straight path of a run: from a planned configuration to a trained and evaluated model.

Nothing heavy is imported before the data and the backbone have been found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from unipeft_run.config import PlannedRun, RunConfig, load
from unipeft_run.config.contents import CONTENTS, DATA, check_unchanged, hash_contents
from unipeft_run.inputs import Inputs, load_inputs, required_splits
from unipeft_run.runs.failures import describe_failure
from unipeft_run.runs.folder import RunFolder, read_object
from unipeft_run.runs.lock import RunLock, RunningElsewhere
from unipeft_run.training.distributed import processes

Metrics = dict[str, Any]


def run(planned: PlannedRun) -> Metrics:
    """Train, select, test and record one configuration, unless that has been done already.

    Returns the metrics and a `state`: `done`; `skipped` if the run was finished before; `diverged`
    or `running elsewhere`, with the `error`. Raises UserError.
    """
    if finished := _call_on_main(lambda: _finished_metrics(planned)):
        return finished
    inputs = load_inputs(planned.config)
    folder = RunFolder(planned.folder, writes=processes.is_main())
    with ExitStack() as stack:
        other = _call_on_main(lambda: _acquire(folder, stack) or _finished_metrics(planned))
        return other or _train(planned, inputs, folder)


def _call_on_main(function: Callable[[], Metrics | None]) -> Metrics | None:
    """Call `function` on rank 0 and broadcast the result."""
    result = function() if processes.is_main() else None
    if processes.world_size() == 1:
        return result
    from unipeft_run.training.distributed.parallel import broadcast

    return broadcast(result)


def _acquire(folder: RunFolder, stack: ExitStack) -> Metrics | None:
    """Acquire the run's lock until `stack` closes; return a result if another process holds it."""
    try:
        folder.guard = stack.enter_context(RunLock(folder.path)).check
    except RunningElsewhere as owner:
        return {"state": "running elsewhere", "error": str(owner)}
    return None


def _finished_metrics(planned: PlannedRun) -> Metrics | None:
    """Return the metrics of a finished run; None if there are none or force=true."""
    metrics = {} if planned.config.force else read_object(planned.folder / "metrics.json")
    if not metrics:
        return None
    print(f"already done: {planned.folder} (force=true starts afresh)")
    return {**metrics, "state": "skipped"}


def _train(planned: PlannedRun, inputs: Inputs, folder: RunFolder) -> Metrics:
    from unipeft_run.experiment import PreparedRun
    from unipeft_run.training.divergence import Diverged

    prepared = None
    if planned.config.force:
        prepared = PreparedRun(planned.config, inputs)  # if it fails, the old run is kept
        folder.clear()
    # written first, so that a run that fails before training is listed and can be retried
    folder.write_text("config.yaml", yaml.safe_dump(planned.config.plain(), sort_keys=False))
    folder.write_json(CONTENTS, dict(planned.contents))
    if record := inputs.task.describe_split(inputs.splits):
        folder.write_json("split.json", record)
    try:
        prepared = prepared or PreparedRun(planned.config, inputs)
        return {**prepared.train(planned, folder), "state": "done"}
    except Diverged as problem:
        folder.mark("diverged", step=problem.step, error=str(problem))
        return {"state": "diverged", "error": str(problem)}
    except Exception as problem:
        folder.mark("failed", error=describe_failure(problem))
        raise
    except KeyboardInterrupt as stop:
        folder.mark("interrupted", error=str(stop) or "stopped by SIGINT")
        raise


def evaluate(
    folder: Path,
    split: str = "test",
    *,
    allow: Sequence[str] = (),
    task_path: str | None = None,
    backbone_path: str | None = None,
) -> dict[str, float]:
    """Evaluate a finished run on `split`, using only its stored delta.

    `allow`: prefixes of classes outside this package that the run's configuration may name;
    `task_path`, `backbone_path`: current paths of its data and backbone. Raises UserError for a
    folder without a finished run, an unknown split, and data or weights that changed since the run.
    """
    config = _with_paths(load(folder, allow), task_path, backbone_path)
    splits = required_splits(config, split)
    expected = _expected_hashes(read_object(folder / CONTENTS), task_path)
    check_unchanged(folder, expected, hash_contents(config, splits))
    inputs = load_inputs(config, splits)
    from accelerate import PartialState

    from unipeft_run.deltas.delta_file import load_delta
    from unipeft_run.experiment import PreparedRun
    from unipeft_run.training.precision import evaluation_precision

    config = config.model_copy(update={"precision": evaluation_precision(config.precision)})
    prepared = PreparedRun(config, inputs, inference=True)
    load_delta(prepared.model, folder)
    prepared.model.to(PartialState().device)
    return prepared.evaluator(prepared.model, split).metrics


def _with_paths(config: RunConfig, task_path: str | None, backbone_path: str | None) -> RunConfig:
    """Replace the paths of the data and the backbone, unless they are None."""
    sections: dict[str, Any] = {}
    if task_path is not None:
        sections["task"] = config.task.model_copy(update={"path": task_path})
    if backbone_path is not None:
        sections["backbone"] = config.backbone.model_copy(update={"path": backbone_path})
    return config.model_copy(update=sections)


def _expected_hashes(recorded: Mapping[str, Any], task_path: str | None) -> dict[str, str]:
    """Select the recorded hashes to compare; data passed as `task_path` may differ."""
    return {
        key: str(digest)
        for key, digest in recorded.items()
        if task_path is None or not key.startswith(f"{DATA}.")
    }
