"""Evaluate run folders: the plan of one evaluation, and its execution (see `cli.EVALUATE`)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unipeft_run.commands.arguments import ALLOW_HELP, as_json, split_list, split_overrides
from unipeft_run.config import load
from unipeft_run.config.resolve import read_eval_config
from unipeft_run.data.tasks.build import build_task
from unipeft_run.errors import UserError
from unipeft_run.runs.outcome import Outcome, capture_outcome, refused_outcome
from unipeft_run.runs.search import find_run
from unipeft_run.sweeps.table import print_table


@dataclass(frozen=True)
class PlannedEvaluation:
    """One evaluation: a run folder, a split, and the other arguments of `run.evaluate`.

    `primary`: the primary metric of the run's task.
    """

    folder: Path
    split: str
    data: str | None
    allow: tuple[str, ...]
    task_path: str | None
    backbone_path: str | None
    format: str = "text"
    primary: str = ""


def plan_evaluation(cfg: DictConfig, overrides: Sequence[str] = ()) -> PlannedEvaluation:
    """Check that `cfg` names a run folder. Raises UserError."""
    del overrides
    if OmegaConf.is_missing(cfg, "run"):
        raise UserError(explain_no_run())
    config = read_eval_config(cfg)
    if config.data and config.task.path:
        raise UserError("data=FILE and task.path=DIR both name the data; give one of them")
    folder = find_run(config.run)
    primary = build_task(load(folder, config.allow).task).primary
    places = config.task.path, config.backbone.path
    return PlannedEvaluation(
        folder, config.split, config.data, config.allow, *places, config.format, primary
    )


def evaluate_job(cfg: DictConfig) -> Outcome:
    """Evaluate one of several runs in a worker; picklable, like `train_job`.

    Prints its name and its metrics, but JSON is printed by `print_evaluations` for all runs.
    """
    try:
        planned = plan_evaluation(cfg)
    except UserError as refusal:
        return refused_outcome(refusal)
    outcome = _evaluate(planned)
    if outcome["metrics"] and planned.format == "text":
        print("\n".join([f"{planned.folder}:", *_metric_lines(outcome)]))
    return outcome


def evaluate_planned(planned: PlannedEvaluation) -> Outcome:
    """Evaluate a run folder and print the metrics."""
    outcome = _evaluate(planned)
    if outcome["metrics"]:
        is_json = planned.format == "json"
        print(as_json(_report(outcome)) if is_json else "\n".join(_metric_lines(outcome)))
    return outcome


def print_evaluations(cells: Sequence[Sequence[str]], outcomes: Sequence[Outcome]) -> None:
    """Print the closing table of several evaluations, or with format=json a list of them."""
    if not any("format=json" in cell for cell in cells):
        print_table([list(cell) for cell in cells], outcomes)
        return
    print(as_json([_describe(*pair) for pair in zip(cells, outcomes, strict=True)]))


def _describe(cell: Sequence[str], outcome: Outcome) -> dict[str, Any]:
    """Return an evaluation as plain data; a failed one has its state and error."""
    if outcome["metrics"]:
        return _report(outcome)
    run = next(word.removeprefix("run=").strip("'") for word in cell if word.startswith("run="))
    return {"run": run, "state": outcome["state"], "error": outcome["error"]}


def _evaluate(planned: PlannedEvaluation) -> Outcome:
    """Evaluate a run; the outcome holds `run`, and metrics named after the split."""

    def run_it() -> Mapping[str, Any]:
        from unipeft_run.run import evaluate as evaluate_run

        metrics = evaluate_run(
            planned.folder,
            planned.split,
            data=planned.data,
            allow=planned.allow,
            task_path=planned.task_path,
            backbone_path=planned.backbone_path,
        )
        split = "data" if planned.data else planned.split
        named = {f"{split}/{name}": value for name, value in metrics.items()}
        primary = f"{split}/{planned.primary}"
        found = {"primary": primary} if primary in named else {}
        return {"run": str(planned.folder), **named, **found}

    return capture_outcome(run_it)


def _report(outcome: Outcome) -> dict[str, Any]:
    return {name: value for name, value in outcome["metrics"].items() if name != "primary"}


def _metric_lines(outcome: Outcome) -> list[str]:
    return [f"{name} {value}" for name, value in _report(outcome).items() if name != "run"]


def explain_no_run() -> str:
    """Return the error message for a command line without a run."""
    return "no run is named; give its folder or id (unipeft runs lists them), or run=DIR"


EVALUATION_OPTIONS = {
    "--split": "the split to evaluate, such as validation",
    "--format": "text or json",
    "--allow": ALLOW_HELP,
}


def read_evaluation_words(args: argparse.Namespace) -> list[str]:
    """Convert positional runs and options to overrides; several runs are a grid."""
    runs, overrides = split_overrides(args.overrides)
    if runs:
        paths = [str(find_run(run)).replace("'", "\\'") for run in runs]
        overrides.append("run=" + ",".join(f"'{path}'" for path in paths))
        args.multirun |= len(runs) > 1
    given = [word.partition("=")[2] for word in overrides if word.startswith("allow=")]
    allowed = [name for value in (*given, *(args.allow or ())) for name in split_list(value)]
    if args.allow:
        overrides = [word for word in overrides if not word.startswith("allow=")]
        overrides.append(f"allow=[{','.join(allowed)}]")
    for name in ("split", "format"):
        overrides += [f"{name}={value}" for value in (getattr(args, name) or [])[-1:]]
    return overrides
