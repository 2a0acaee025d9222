"""The console commands unipeft-train and unipeft-eval. Imports nothing heavy at the top."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf

from unipeft_run.commands.help import EVALUATE_HELP, train_help
from unipeft_run.commands.pipes import outlive_readers
from unipeft_run.config import compose, implied, load, resolve, run_folder
from unipeft_run.config.hydra_errors import needed
from unipeft_run.config.messages import conf_dir
from unipeft_run.errors import UserError
from unipeft_run.runs.outcome import Outcome, capture_outcome, exit_code
from unipeft_run.sweeps.grid import run_grid
from unipeft_run.sweeps.hydra_settings import check_hydra_settings
from unipeft_run.training.distributed import processes
from unipeft_run.training.distributed.environment import prepare_environment


@dataclass(frozen=True)
class Command:
    """A command over configurations: `job` runs one, `check` refuses it before that."""

    config_name: str
    job: Callable[[DictConfig], Outcome]
    check: Callable[[DictConfig], Hashable]
    help: Callable[[], str]
    when_empty: Callable[[], str]


def train() -> NoReturn:
    """unipeft-train: train and test what the overrides describe."""
    outlive_readers()
    command = Command("train", train_job, check_train, train_help, lambda: needed([]))
    sys.exit(main(command, sys.argv[1:]))


def evaluate() -> NoReturn:
    """unipeft-eval: evaluate the delta of a run folder."""
    outlive_readers()
    command = Command("eval", evaluate_job, check_evaluate, lambda: EVALUATE_HELP, _which_run)
    sys.exit(main(command, sys.argv[1:]))


def train_job(cfg: DictConfig) -> Outcome:
    """One run. At module level, and plain data back, so that it can be sent to a worker."""
    outlive_readers()
    prepare_environment()
    if cfg.processes > processes.world_size() == 1:
        from unipeft_run.sweeps.launch import launch_processes

        return launch_processes(cfg, train_job)

    def run_it() -> Mapping[str, Any]:
        check_train(cfg)
        from unipeft_run.run import run

        return run(cfg)

    return capture_outcome(run_it)


def check_train(cfg: DictConfig) -> Hashable:
    """The folder of the run. Raises `UserError`."""
    resolve(cfg)
    return run_folder(cfg)


def evaluate_job(cfg: DictConfig) -> Outcome:
    """One evaluation of a run folder; prints the metrics."""

    def run_it() -> Mapping[str, Any]:
        check_evaluate(cfg)
        from unipeft_run.run import evaluate as evaluate_run

        metrics = evaluate_run(Path(cfg.run), cfg.split, cfg.allow)
        for name, value in metrics.items():
            print(f"{cfg.split}/{name} {value}")
        return metrics

    return capture_outcome(run_it)


def check_evaluate(cfg: DictConfig) -> Hashable:
    """What is to be evaluated. Raises `UserError` if it is no run folder."""
    if OmegaConf.is_missing(cfg, "run"):
        raise UserError(_which_run())
    load(Path(cfg.run), cfg.allow)
    return str(cfg)


def _which_run() -> str:
    return "what to evaluate? give run=DIR, a run folder as in outputs/sst2/mam/ab12cd34"


def main(command: Command, argv: Sequence[str]) -> int:
    """The exit code: 0 done, 1 a run failed, 2 the configuration is wrong,
    128 + its number after a signal, as a shell has it."""
    try:
        prepare_environment()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        with processes.silence_other_ranks():
            return _main(command, argv)
    except UserError as error:
        if processes.is_main():
            print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return 128 + getattr(stop, "signum", signal.SIGINT)


def _main(command: Command, argv: Sequence[str]) -> int:
    if not argv:
        raise UserError(command.when_empty())
    if "--version" in argv:  # before Hydra prints its own
        print(f"unipeft {version('unipeft')}")
        return 0
    args = _parse(argv)
    if args.help:
        print(command.help())
        return 0
    if args.multirun and args.cfg:
        raise UserError("--cfg shows one configuration; leave out -m and the lists")
    if args.multirun:
        return run_grid(command.config_name, args.overrides, command.job, command.check)
    if not (args.shell_completion or args.hydra_help):
        check_hydra_settings(args.overrides, is_grid=bool(args.cfg))
        command.check(compose(args.overrides, command.config_name))
    return _hand_over(command, argv, [*args.overrides, *implied(args.overrides)])


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Hydra's own flags, among the overrides in any order."""
    parser = get_args_parser()
    parser.usage = "unipeft-train key=value ... (see --help)"
    args, unknown = parser.parse_known_intermixed_args(list(argv))
    if unknown:
        raise UserError(f"there is no option {unknown[0]}; see --help")
    if args.config_dir:  # the same thing, in words that `compose` takes
        args.overrides.append(f"hydra.searchpath=[file://{Path(args.config_dir).absolute()}]")
    return args


def _hand_over(command: Command, argv: Sequence[str], overrides: Sequence[str]) -> int:
    """Let Hydra do it: one run, or --cfg, --info, shell completion."""
    flags = [word for word in argv if word not in overrides]
    sys.argv = [sys.argv[0], *flags, *overrides]
    outcomes: list[Outcome] = []

    def job(cfg: DictConfig) -> None:
        outcomes.append(command.job(cfg))

    name = command.config_name
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(job)()
    for outcome in outcomes:
        if outcome["error"]:
            print(outcome["error"], file=sys.stderr)
    return exit_code(outcomes)
