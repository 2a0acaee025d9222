"""The console commands unipeft-train and unipeft-eval. Heavy imports are inside functions."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf

from unipeft_run.commands.help import evaluate_help, train_help
from unipeft_run.commands.key_help import describe_keys
from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.commands.signals import raise_on_sigterm
from unipeft_run.config import (
    PlannedRun,
    compose,
    implied_overrides,
    load,
    normalise_overrides,
    plan,
)
from unipeft_run.config.hydra_errors import explain_missing
from unipeft_run.config.messages import conf_dir
from unipeft_run.config.resolve import read_eval_config
from unipeft_run.errors import UserError
from unipeft_run.runs.failures import explain_interrupt
from unipeft_run.runs.outcome import Outcome, capture_outcome, exit_code, refused_outcome
from unipeft_run.sweeps.grid import run_grid
from unipeft_run.sweeps.hydra_settings import check_hydra_settings
from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.environment import prepare_environment, silence_progress_bars

Plan = TypeVar("Plan")
UNSUPPORTED = ("config_name", "config_path", "package")  # Hydra's flags that would have no effect


@dataclass(frozen=True)
class Command(Generic[Plan]):
    """A command that runs configurations, with its steps as functions.

    `plan` validates a configuration, composed from the given overrides, and raises UserError if it
    is wrong. `run` executes a plan; `job` executes a configuration that a worker has composed.
    Plans with equal `identity` are the same run. `help` returns the help text, `when_empty` the
    error message for a command line without arguments.
    """

    config_name: str
    plan: Callable[[DictConfig, Sequence[str]], Plan]
    run: Callable[[Plan], Outcome]
    job: Callable[[DictConfig], Outcome]
    identity: Callable[[Plan], Hashable]
    help: Callable[[], str]
    when_empty: Callable[[], str]


def train() -> NoReturn:
    """Run unipeft-train: train and test the configured run."""
    sys.exit(main(TRAIN, sys.argv[1:]))


def evaluate() -> NoReturn:
    """Run unipeft-eval: evaluate the delta of a run folder."""
    sys.exit(main(EVALUATE, sys.argv[1:]))


def train_job(cfg: DictConfig) -> Outcome:
    """Run one configuration in a worker; the function is picklable and returns plain data."""
    ignore_broken_pipes()
    prepare_environment()
    silence_progress_bars()
    try:
        return train_planned(plan(cfg))
    except UserError as refusal:
        return refused_outcome(refusal)


def train_planned(planned: PlannedRun) -> Outcome:
    """Train in this process, or launch the number of processes that the configuration sets."""
    if planned.config.processes > processes.world_size() == 1:
        from unipeft_run.sweeps.launch import launch_processes

        return launch_processes(planned, train_planned)

    def run_it() -> Mapping[str, Any]:
        from unipeft_run.run import run

        return run(planned)

    return capture_outcome(run_it)


def run_folder(planned: PlannedRun) -> Hashable:
    """Return the identity of a planned run: its folder."""
    return planned.folder


@dataclass(frozen=True)
class PlannedEvaluation:
    """One evaluation: a run folder, a split, and the other arguments of `run.evaluate`."""

    folder: Path
    split: str
    allow: tuple[str, ...]
    task_path: str | None
    backbone_path: str | None


def plan_evaluation(cfg: DictConfig, overrides: Sequence[str] = ()) -> PlannedEvaluation:
    """Check that `cfg` names a run folder. Raises UserError."""
    del overrides
    if OmegaConf.is_missing(cfg, "run"):
        raise UserError(explain_no_run())
    config = read_eval_config(cfg)
    folder = Path(os.path.expanduser(config.run))
    load(folder, config.allow)
    return PlannedEvaluation(
        folder, config.split, config.allow, config.task.path, config.backbone.path
    )


def evaluate_job(cfg: DictConfig) -> Outcome:
    """Evaluate the run folder of one configuration in a worker; picklable, like `train_job`."""
    try:
        return evaluate_planned(plan_evaluation(cfg))
    except UserError as refusal:
        return refused_outcome(refusal)


def evaluate_planned(planned: PlannedEvaluation) -> Outcome:
    """Evaluate a run folder and print the metrics."""

    def run_it() -> Mapping[str, Any]:
        from unipeft_run.run import evaluate as evaluate_run

        metrics = evaluate_run(
            planned.folder,
            planned.split,
            allow=planned.allow,
            task_path=planned.task_path,
            backbone_path=planned.backbone_path,
        )
        for name, value in metrics.items():
            print(f"{planned.split}/{name} {value}")
        return metrics

    return capture_outcome(run_it)


def explain_no_run() -> str:
    """Say that run= is missing."""
    return "run= is missing; give run=DIR, a run folder such as outputs/sst2/mam/ab12cd34"


TRAIN = Command(
    "train", plan, train_planned, train_job, run_folder, train_help, lambda: explain_missing([])
)
EVALUATE = Command(
    "eval", plan_evaluation, evaluate_planned, evaluate_job, str, evaluate_help, explain_no_run
)


def main(command: Command[Plan], argv: Sequence[str]) -> int:
    """Run a command; return the exit code.

    0: done; 1: a run failed; 2: user error; 128 + n: interrupted by signal n.
    """
    ignore_broken_pipes()
    silence_progress_bars()
    try:
        prepare_environment()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        with processes.silence_other_ranks(), raise_on_sigterm():
            return _main(command, normalise_overrides(argv))
    except UserError as error:
        if processes.is_main():
            print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(explain_interrupt(stop, argv), file=sys.stderr)
        return 128 + getattr(stop, "signum", signal.SIGINT)


def _main(command: Command[Plan], argv: Sequence[str]) -> int:
    if not argv:
        raise UserError(command.when_empty())
    if "--version" in argv:  # before Hydra prints its own
        print(f"unipeft {version('unipeft')}")
        return 0
    args = _parse(argv)
    if args.help:
        keys = [argument for argument in args.overrides if "=" not in argument]
        print("\n".join(map(describe_keys, keys)) if keys else command.help())
        return 0
    if args.multirun and args.cfg:
        raise UserError("--cfg shows a single configuration; leave out -m and lists of values")
    if args.multirun:

        def identify(cfg: DictConfig, overrides: Sequence[str]) -> Hashable:
            return command.identity(command.plan(cfg, overrides))

        return run_grid(command.config_name, args.overrides, command.job, identify)
    if args.shell_completion or args.hydra_help:
        return _ask_hydra(command.config_name, argv, args.overrides)
    check_hydra_settings(args.overrides, is_grid=bool(args.cfg))
    cfg = compose(args.overrides, command.config_name)
    planned = command.plan(cfg, args.overrides)
    if args.cfg or args.info:
        return _ask_hydra(command.config_name, argv, args.overrides)
    outcome = command.run(planned)
    if outcome["error"]:
        print(outcome["error"], file=sys.stderr)
    return exit_code([outcome])


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse Hydra's flags, which may appear anywhere among the overrides."""
    parser = get_args_parser()
    parser.error = _refuse_flag  # type: ignore[method-assign]
    args, unknown = parser.parse_known_intermixed_args(list(argv))
    unsupported = [flag for flag in UNSUPPORTED if getattr(args, flag, None)]
    for flag in [*unknown, *(f"--{name.replace('_', '-')}" for name in unsupported)]:
        raise UserError(f"there is no option {flag}; see --help")
    if args.config_dir:  # pass it to `compose` as an override
        args.overrides.append(f"hydra.searchpath=[file://{Path(args.config_dir).absolute()}]")
    return args


def _refuse_flag(message: str) -> NoReturn:
    raise UserError(f"{message}; see --help")


def _ask_hydra(config_name: str, argv: Sequence[str], overrides: Sequence[str]) -> int:
    """Let Hydra handle --cfg, --info, --hydra-help and shell completion."""
    flags = [argument for argument in argv if argument not in overrides]
    # --info takes a word, if one follows
    sys.argv = [sys.argv[0], *overrides, *implied_overrides(overrides), *flags]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(
        lambda cfg: None
    )()
    return 0
