"""The commands unipeft train and unipeft eval. Heavy imports are inside functions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from unipeft_run.commands.entry import entry, resumable
from unipeft_run.commands.evaluation import (
    EVALUATION_OPTIONS,
    evaluate_job,
    evaluate_planned,
    explain_no_run,
    plan_evaluation,
    print_evaluations,
    read_evaluation_words,
)
from unipeft_run.commands.flags import Keys, find_override, overridable_keys
from unipeft_run.commands.help import evaluate_help, train_help
from unipeft_run.commands.key_help import describe_keys, field_choices
from unipeft_run.commands.signals import raise_on_sigterm
from unipeft_run.config import (
    PlannedRun,
    compose,
    implied_overrides,
    normalise_overrides,
    plan,
)
from unipeft_run.config.eval_schema import EvalConfig
from unipeft_run.config.hydra_errors import explain_missing
from unipeft_run.config.inert import without_varied_sizes
from unipeft_run.config.messages import SeveralRuns
from unipeft_run.data.fingerprint import observe
from unipeft_run.errors import UserError
from unipeft_run.extensions import conf_dir, with_search_path
from unipeft_run.runs.folder import is_finished
from unipeft_run.runs.outcome import Outcome, capture_outcome, exit_code, refused_outcome
from unipeft_run.sweeps.check import CheckedRun
from unipeft_run.sweeps.grid import PrintResults, run_grid
from unipeft_run.sweeps.hydra_settings import check_hydra_settings
from unipeft_run.sweeps.table import print_table
from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.environment import prepare_environment, silence_progress_bars

Plan = TypeVar("Plan")
FLAGS = (
    "--help",
    "--multirun",
    "--cfg",
    "--resolve",
    "--info",
    "--hydra-help",
    "--config-dir",
    "--version",
)
SHOWING = ("cfg", "info", "hydra_help")  # flags that print something instead of running
# Hydra's flags that would have no effect
UNSUPPORTED = ("config_name", "config_path", "package", "experimental_rerun")


@dataclass(frozen=True)
class Command(Generic[Plan]):
    """A command that runs configurations, with its steps as functions.

    `plan` validates a configuration, composed from the given overrides, and raises UserError if it
    is wrong. `run` executes a plan; `job` executes a configuration that a worker has composed.
    `check` returns the identity of a planned run, for a grid. `help` returns the help text,
    `when_empty` the error message for a command line without arguments. `read_words` turns the
    command's positional words and its options (`options`: flag and help text) into overrides.
    `remember` is told which run folder a command line plans, and from which files. `suggest`
    returns a line on how to use a run that has just finished. `print_results` prints the results of
    a grid. `keys` returns the keys of the configuration, for error messages.
    """

    config_name: str
    plan: Callable[[DictConfig, Sequence[str]], Plan]
    run: Callable[[Plan], Outcome]
    job: Callable[[DictConfig], Outcome]
    check: Callable[[Plan], CheckedRun]
    help: Callable[[], str]
    when_empty: Callable[[], str]
    keys: Callable[[], Keys]
    options: Mapping[str, str] = field(default_factory=dict)
    remember: Callable[[Sequence[str], Path, Sequence[Path]], None] | None = None
    suggest: Callable[[PlannedRun], str] | None = None
    read_words: Callable[[argparse.Namespace], list[str]] = lambda args: list(args.overrides)
    print_results: PrintResults = print_table


def train() -> NoReturn:
    """Run `unipeft train` with the arguments in sys.argv."""
    sys.exit(run_train(sys.argv[1:]))


def evaluate() -> NoReturn:
    """Run `unipeft eval` with the arguments in sys.argv."""
    sys.exit(run_evaluate(sys.argv[1:]))


def run_train(argv: Sequence[str]) -> int:
    """Train and test the configured run, or a grid of runs; return the exit code."""
    return main(TRAIN, argv)


def run_evaluate(argv: Sequence[str]) -> int:
    """Evaluate the stored deltas of run folders; return the exit code."""
    return main(EVALUATE, argv)


def train_job(cfg: DictConfig) -> Outcome:
    """Run one configuration in a worker; the function is picklable and returns plain data."""
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


def check_run(planned: PlannedRun) -> CheckedRun:
    """Return the identity of a planned run, its folder, and whether it has been done already."""
    return CheckedRun(planned.folder, not planned.config.force and is_finished(planned.folder))


TRAIN = Command(
    "train",
    plan,
    train_planned,
    train_job,
    check_run,
    train_help,
    lambda: explain_missing([]),
    overridable_keys,
)
EVALUATE = Command(
    "eval",
    plan_evaluation,
    evaluate_planned,
    evaluate_job,
    lambda planned: CheckedRun(str(planned)),
    evaluate_help,
    explain_no_run,
    lambda: field_choices(EvalConfig),
    options=EVALUATION_OPTIONS,
    read_words=read_evaluation_words,
    print_results=print_evaluations,
)


def main(command: Command[Plan], argv: Sequence[str]) -> int:
    """Run a command; return the exit code (see `commands.entry`)."""

    @entry
    def run(words: Sequence[str]) -> int:
        silence_progress_bars()
        try:
            prepare_environment()
        except UserError as error:  # the rank may be unreadable: every process says it
            print(error, file=sys.stderr)
            return 2
        with processes.silence_other_ranks(), raise_on_sigterm(), resumable(words):
            return _main(command, words)

    return run(argv)


def _main(command: Command[Plan], argv: Sequence[str]) -> int:
    if not argv:
        raise UserError(command.when_empty())
    args = _parse(command, argv)
    if args.help:
        keys = [word for word in args.overrides if "=" not in word]
        print("\n".join(map(describe_keys, keys)) if keys else command.help())
        return 0
    overrides = with_search_path(normalise_overrides(command.read_words(args)))
    shown = [f"--{flag.replace('_', '-')}" for flag in SHOWING if getattr(args, flag)]
    if args.multirun and shown:
        raise UserError(
            f"{shown[0]} shows a single configuration; leave out -m and lists of values"
        )
    if args.multirun:

        def check(cfg: DictConfig, cell: Sequence[str]) -> CheckedRun:
            return command.check(command.plan(cfg, without_varied_sizes(cell, overrides)))

        name, job = command.config_name, command.job
        return run_grid(name, overrides, job, check, command.print_results)
    if args.shell_completion or args.hydra_help:
        return _ask_hydra(command.config_name, args, overrides)
    check_hydra_settings(overrides, is_grid=bool(args.cfg))
    with observe() as files:
        cfg = _compose(overrides, command.config_name)
        planned = command.plan(cfg, overrides)
    if args.cfg or args.info:
        return _ask_hydra(command.config_name, args, overrides)
    if command.remember and isinstance(planned, PlannedRun) and not planned.config.force:
        command.remember(argv, planned.folder, files)
    return _run_planned(command, planned)


def _run_planned(command: Command[Plan], planned: Plan) -> int:
    outcome = command.run(planned)
    if outcome["error"]:
        print(outcome["error"], file=sys.stderr)
    elif command.suggest and isinstance(planned, PlannedRun) and outcome["state"] == "done":
        print(command.suggest(planned))
    return exit_code([outcome])


def _compose(overrides: Sequence[str], config_name: str) -> DictConfig:
    """Compose a single run; advise -m for several."""
    try:
        return compose(overrides, config_name)
    except SeveralRuns as error:
        raise UserError(f"{error}; add -m to run each of them") from None


def _parse(command: Command[Plan], argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command's options and Hydra's, which may appear anywhere among the overrides."""
    parser = get_args_parser()
    for flag in command.options:
        parser.add_argument(flag, action="append")
    parser.error = _refuse_flag  # type: ignore[method-assign]
    args, unknown = parser.parse_known_intermixed_args(list(argv))
    unsupported = [flag for flag in UNSUPPORTED if getattr(args, flag, None)]
    for flag in [*unknown, *(f"--{name.replace('_', '-')}" for name in unsupported)]:
        near = get_close_matches(flag.partition("=")[0], [*command.options, *FLAGS], n=1)
        hint = f"did you mean {near[0]}?" if near else "see --help"
        if override := find_override(flag, argv, command.keys()):
            hint = f"write {override}"
        raise UserError(f"there is no option {flag}; {hint}")
    if args.resolve and not args.cfg:
        raise UserError("--resolve has an effect with --cfg only, as in --cfg job --resolve")
    return args


def _refuse_flag(message: str) -> NoReturn:
    raise UserError(f"{message}; see --help")


def _ask_hydra(config_name: str, args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Let Hydra handle --cfg, --info, --hydra-help and shell completion."""
    flags = [f"--{name}={getattr(args, name)}" for name in ("cfg", "info") if getattr(args, name)]
    flags += ["--resolve"] * args.resolve + ["--hydra-help"] * args.hydra_help
    flags += ["--shell-completion"] * args.shell_completion
    sys.argv = [sys.argv[0], *overrides, *implied_overrides(overrides), *flags]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(
        lambda cfg: None
    )()
    return 0
