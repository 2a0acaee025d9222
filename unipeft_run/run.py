"""The straight path of a run: from a planned configuration to a trained and evaluated model.

Nothing heavy is imported before the data and the backbone have been found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from unipeft_run.config import PlannedRun
from unipeft_run.config.classes import import_user_classes
from unipeft_run.errors import CannotLoad, UserError
from unipeft_run.inference.stored_run import open_run, relocate
from unipeft_run.inputs import FILE_SPLIT, Inputs, load_file_inputs, load_inputs, required_splits
from unipeft_run.runs.failures import describe_failure
from unipeft_run.runs.folder import (
    CONTENTS,
    SPLIT,
    RunFolder,
    is_run_folder,
    report_finished,
)
from unipeft_run.runs.lock import RunLock, RunningElsewhere, owner_of, sees_owner
from unipeft_run.runs.printable import printable
from unipeft_run.training.distributed import processes

Metrics = dict[str, Any]


def run(planned: PlannedRun) -> Metrics:
    """Train, select, test and record one configuration, unless that has been done already.

    Returns the metrics and a `state`: `done`; `skipped` if the run was finished before; `diverged`
    or `running elsewhere`, with the `error`. Raises UserError.
    """
    if finished := _call_on_main(lambda: _finished_metrics(planned)):
        return finished
    import_user_classes(planned.config)
    inputs = load_inputs(planned.config)
    folder = RunFolder(planned.folder, writes=processes.is_main())
    with ExitStack() as stack:
        stack.callback(folder.remove_if_empty)
        other = _call_on_main(lambda: _acquire(folder, stack) or _finished_metrics(planned))
        if other is None:
            _check_shared(planned, folder)
            _check_device(planned, folder)
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


def _check_shared(planned: PlannedRun, folder: RunFolder) -> None:
    """Raise `UserError` on all ranks unless each of them sees the lock that rank 0 holds."""
    if processes.world_size() == 1:
        return
    from accelerate import PartialState

    from unipeft_run.training.distributed.parallel import all_reduce_sum, broadcast

    owner = broadcast(owner_of(folder.path))
    is_shared = owner is not None and sees_owner(folder.path, owner)
    if any(all_reduce_sum([not is_shared], PartialState().device)):
        output = printable(planned.config.output)
        raise UserError(f"output={output}: must be on a disk that all machines of the run share")


def _check_device(planned: PlannedRun, folder: RunFolder) -> None:
    """Raise `UserError` if this machine lacks the precision or computation that is asked for."""
    from accelerate import PartialState

    from unipeft_run.training.checkpoint_store import LAST
    from unipeft_run.training.compute.plan import check_device
    from unipeft_run.training.precision import autocast_dtype

    config, autocast = planned.config, autocast_dtype(planned.config.precision)
    if config.force or not (folder.path / LAST).exists():  # a resumed run adapts its plan
        check_device(config.compute, PartialState().device, autocast)


def _finished_metrics(planned: PlannedRun) -> Metrics | None:
    """Return the metrics of a finished run; None if there are none or force=true."""
    metrics = {} if planned.config.force else report_finished(planned.folder)
    return {**metrics, "state": "skipped"} if metrics else None


def _train(planned: PlannedRun, inputs: Inputs, folder: RunFolder) -> Metrics:
    from unipeft_run.experiment import PreparedRun
    from unipeft_run.training.divergence import Diverged

    prepared = None
    if planned.config.force:
        prepared = PreparedRun(planned.config, inputs)  # if it fails, the old run is kept
        folder.clear()
    is_new = not is_run_folder(folder.path)
    _write_plan(planned, inputs, folder)
    try:
        prepared = prepared or PreparedRun(planned.config, inputs)
        is_new = False
        return {**prepared.train(planned, folder), "state": "done"}
    except UserError as refusal:
        if is_new and not isinstance(refusal, CannotLoad):  # a refused configuration leaves no run
            folder.withdraw()
        else:
            folder.mark("failed", error=str(refusal))
        raise
    except Diverged as problem:
        folder.mark("diverged", step=problem.step, error=str(problem))
        return {"state": "diverged", "error": str(problem)}
    except Exception as problem:
        folder.mark("failed", error=describe_failure(problem))
        raise
    except KeyboardInterrupt as stop:
        folder.mark("interrupted", error=str(stop) or "stopped by SIGINT")
        raise


def _write_plan(planned: PlannedRun, inputs: Inputs, folder: RunFolder) -> None:
    """Write what is known before training: a run that fails is listed, and can be retried."""
    folder.write_text("config.yaml", yaml.safe_dump(planned.config.plain(), sort_keys=False))
    folder.write_json(CONTENTS, dict(planned.contents))
    if record := inputs.task.describe_split(inputs.splits):
        folder.write_json(SPLIT, record)


def evaluate(
    folder: Path | str,
    split: str = "test",
    *,
    data: Path | str | None = None,
    allow: str | Sequence[str] = (),
    task_path: str | None = None,
    backbone_path: str | None = None,
) -> dict[str, float]:
    """Evaluate a finished run on `split`, or on the file `data`, using only its stored delta.

    `folder`: a run folder or run id; `allow`: prefixes of classes outside this package that the
    run's configuration may name; `task_path`, `backbone_path`: current paths of its data and
    backbone. Raises UserError for a folder without a finished run, an unknown split, and data or
    weights that changed after the run was trained.
    """
    run = open_run(folder, allow=allow, backbone_path=backbone_path)
    if data is not None:
        inputs, split = load_file_inputs(run.config, Path(data)), FILE_SPLIT
    else:
        splits = required_splits(run.config, split)
        if task_path is None:
            run.check_contents(splits)
        config = relocate(run.config, run.folder, task_path=task_path)
        inputs = load_inputs(config, splits)
    from accelerate import PartialState

    from unipeft_run.deltas.delta_file import load_delta
    from unipeft_run.experiment import PreparedRun
    from unipeft_run.training.precision import choose_kernels, evaluation_precision

    choose_kernels()
    precision = evaluation_precision(run.config.precision)
    prepared = PreparedRun(
        run.config.model_copy(update={"precision": precision}), inputs, inference=True
    )
    load_delta(prepared.model, run.folder)
    prepared.model.to(PartialState().device)
    limit = None if data is None else len(inputs.splits[split])  # a file has no companions
    return prepared.evaluator(prepared.model, split, limit).metrics
