"""Search a space of configurations with a sweeper plugin of Hydra: `-m hydra/sweeper=optuna`.

The sweeper proposes trials; each is an ordinary run with its own identity, lock and folder. The
same command resumes a search: the sweeper has a fixed seed, so it proposes the same trials again,
and finished runs return their results at once, up to the trial that was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from unipeft_run.commands.shell import format_command
from unipeft_run.config import compose
from unipeft_run.config.experiments import find_experiment
from unipeft_run.config.hydra_errors import COMPOSE_ERRORS, explain_compose_error
from unipeft_run.config.messages import shorten
from unipeft_run.config.presets import register_presets
from unipeft_run.errors import UserError
from unipeft_run.runs.folder import make_usable
from unipeft_run.runs.lock import RunLock, RunningElsewhere
from unipeft_run.runs.outcome import Outcome, exit_code
from unipeft_run.sweeps.check import Check
from unipeft_run.sweeps.combinations import count_combinations
from unipeft_run.sweeps.engines import Engine
from unipeft_run.sweeps.engines.worker import Job
from unipeft_run.sweeps.hydra_settings import (
    SEARCH_GROUP,
    is_search_setting,
    override_key,
    placed_key,
)
from unipeft_run.sweeps.objective import objective_of
from unipeft_run.sweeps.sweepers import prepare_sweeper, register_sweepers, require_sweeper
from unipeft_run.sweeps.table import Cell, print_table
from unipeft_run.sweeps.trials import AllTried, TrialFailed, Trials

# keys that change what is measured, or which keys there are: trials cannot differ in them
INCOMPARABLE = (
    "method",
    *("task", "task_type", "scale", "debug", "limit.validation", "recipe.eval_limit"),
    *("evaluation.references", "task.rouge_tokenizer"),
    *("task.path", "task.data", "task.mini", "task.hub", "task.format", "task.paragraphs"),
    *("task.selection", "task.metric", "task.by", "task.extract", "task.answer_words"),
    *("task.marker", "task.eval_target_length"),
    *("task.validation_size", "task.test_size", "task.split_seed"),
    *("task.target", "task.response", "task.label", "task.labels", "task.label_column"),
)
DEFAULT_DIR = "${output}"  # hydra.sweep.dir in conf/train.yaml


def run_search(
    hydra: Hydra, settings: Sequence[str], overrides: Sequence[str], job: Job, check: Check
) -> int:
    """Run the trials that the sweeper proposes, print the table, return the exit code.

    `settings`: Hydra's own overrides among those of the command line. Raises `UserError` before
    anything runs if the search is wrong.
    """
    if find_experiment(overrides, settings):
        raise UserError("experiment= lists its own runs; leave it out, or leave out the sweeper")
    config = _compose_search(hydra, settings, overrides)
    fixed, searched = _split(hydra, overrides)
    _check_searched(config, fixed, searched)
    objective, folder = objective_of(config), _search_folder(config, fixed, searched)
    of_trials = [setting for setting in settings if not is_search_setting(setting)]

    def identify(cell: Cell) -> Hashable:
        return check(compose([*of_trials, *cell]), cell).identity

    make_usable(folder, "search")
    try:
        with RunLock(folder), TemporaryDirectory(prefix="unipeft-") as scratch:
            prepare_sweeper(config, objective.direction, folder)
            engine = Engine(hydra.config_loader, _for_trials(config, of_trials), job, Path(scratch))
            total = config.hydra.sweeper.get("n_trials")
            size = count_combinations(config.hydra.sweeper, fixed, searched)
            trials = Trials(engine, identify, objective, folder, fixed, total, size)
            problem = _sweep(config, trials, [*fixed, *searched])
    except RunningElsewhere as owner:
        raise UserError(f"this search is running: {owner}") from None
    return _conclude(trials, problem)


def _compose_search(hydra: Hydra, settings: Sequence[str], overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of the sweeper; ranges keep their default values."""
    for override in (o for o in settings if override_key(o) == "hydra/sweeper"):
        require_sweeper(override.partition("=")[2])
    register_sweepers()
    register_presets()
    try:
        _refuse_incomparable(map(placed_key, _split(hydra, overrides)[1]))
        config = _compose(hydra, [*settings, *overrides])
    except COMPOSE_ERRORS as error:
        raise explain_compose_error(
            error, [*settings, *overrides], "train", partial(_compose, hydra)
        ) from None
    name = config.hydra.runtime.choices["hydra/sweeper"]
    if name == "basic" and SEARCH_GROUP in map(override_key, overrides):
        raise UserError(
            f"{SEARCH_GROUP}: the file selects no sweeper; add `- override /hydra/sweeper: optuna` "
            "to its defaults"
        )
    require_sweeper(name)
    _check_search_file(hydra, config, overrides)
    return config


def _check_search_file(hydra: Hydra, config: DictConfig, overrides: Sequence[str]) -> None:
    """Raise UserError if the file that hparams_search= names changes the trials themselves."""
    others = [override for override in overrides if override_key(override) != SEARCH_GROUP]
    if len(others) == len(overrides):
        return
    for key, value in _compose(hydra, [*_searchpath(config), *others]).items():
        if key != "hydra" and config[key] != value:
            raise UserError(
                f"{SEARCH_GROUP}: the file sets {key!s}, but may set hydra.sweeper only; put the "
                "rest on the command line or in an experiment file"
            )


def _searchpath(config: DictConfig) -> list[str]:
    return [o for o in config.hydra.overrides.hydra if override_key(o) == "hydra.searchpath"]


def _compose(hydra: Hydra, overrides: Sequence[str], config_name: str = "train") -> DictConfig:
    return hydra.compose_config(
        config_name, list(overrides), run_mode=RunMode.MULTIRUN, with_log_configuration=False
    )


def _split(hydra: Hydra, overrides: Sequence[str]) -> tuple[Cell, Cell]:
    """Split the overrides into those that all trials share, and ranges."""
    own = [override for override in overrides if override_key(override) != SEARCH_GROUP]
    parsed = OverridesParser.create(hydra.config_loader).parse_overrides(own)
    ranges = [override.is_sweep_override() for override in parsed]
    fixed = [override for override, is_range in zip(own, ranges, strict=True) if not is_range]
    searched = [override for override, is_range in zip(own, ranges, strict=True) if is_range]
    return fixed, searched


def _check_searched(config: DictConfig, fixed: Cell, searched: Cell) -> None:
    """Raise UserError if the command line and the search file search nothing, or a wrong key."""
    keys = {*map(placed_key, searched), *(config.hydra.sweeper.get("params") or {})}
    keys -= set(map(placed_key, fixed))
    if not keys and config.hydra.sweeper.get("custom_search_space") is None:
        raise UserError(
            "nothing to search: give ranges, such as 'optim.lr=tag(log,interval(1e-4,1e-2))' or "
            f"'ffn.bottleneck=choice(16,32)', or {SEARCH_GROUP}="
        )
    _refuse_incomparable(keys)


def _refuse_incomparable(keys: Iterable[str]) -> None:
    """Raise UserError for keys that trials cannot differ in."""
    wrong = {key for key in keys if key in INCOMPARABLE or key.startswith("task.hub.")}
    if wrong - {"method"}:
        raise UserError(
            f"{min(wrong - {'method'})} cannot be searched: it changes the data or the metric, so "
            "trials could not be compared"
        )
    if wrong:
        raise UserError(
            "method cannot be searched: methods differ in their keys and sizes; search each "
            "method by itself, or run a grid of methods without a sweeper"
        )


def _search_folder(config: DictConfig, fixed: Cell, searched: Cell) -> Path:
    """Return the folder of the search: the same for the same space, whatever n_trials is.

    It is below hydra.sweep.dir if that is set, where other searches may be too.
    """
    given = OmegaConf.to_container(config.hydra.sweep, resolve=False)["dir"]  # type: ignore[index,call-overload]
    is_default = given == DEFAULT_DIR
    parent = Path(config.output, "searches") if is_default else Path(config.hydra.sweep.dir)
    sweeper = OmegaConf.to_container(config.hydra.sweeper)
    what = {key: sweeper.get(key) for key in ("_target_", "sampler", "params")}  # type: ignore[union-attr]
    text = json.dumps([what, sorted([*fixed, *searched])], sort_keys=True, default=str)
    name = hashlib.sha256(text.encode()).hexdigest()[:8]
    return parent.expanduser() / name


def _for_trials(config: DictConfig, settings: Sequence[str]) -> DictConfig:
    """Return Hydra's configuration for running trials, without the sweeper's settings."""
    copy = config.copy()
    with read_write(copy), open_dict(copy):
        copy.hydra.overrides.hydra = list(settings)
    return copy


def _sweep(config: DictConfig, trials: Trials, arguments: Sequence[str]) -> str:
    """Let the sweeper propose trials until it is done; return why it stopped early, or ''."""
    context, name = trials.engine.context, config.hydra.runtime.choices["hydra/sweeper"]
    with read_write(config), open_dict(config):
        config.hydra.sweep.dir = str(trials.folder)
    try:
        with _as_launcher(trials):
            sweeper = Plugins.instance().instantiate_sweeper(
                hydra_context=context, task_function=trials.engine.job, config=config
            )
        sweeper.sweep([argument for argument in arguments if not argument.startswith("~")])
    except UserError:
        raise
    except AllTried:
        tried = "the only combination has" if trials.combinations == 1 else "all combinations have"
        print(f"{tried} been tried: the search ends", file=sys.stderr)
    except TrialFailed as failure:
        return f"hydra/sweeper={name} ended the search after a failed trial: {failure}"
    except Exception as problem:
        if trials.outcomes and trials.best is None:
            return "no trial has a value"  # the sweeper has found no best trial
        raise UserError(f"hydra/sweeper={name}: {shorten(problem, 200)}") from problem
    return ""


@contextmanager
def _as_launcher(trials: Trials) -> Iterator[None]:
    """Make `trials` the launcher of the sweeper that is built inside this context.

    Otherwise Hydra would build the launcher from a plugin.
    """
    plugins: Any = Plugins.instance()
    plugins.instantiate_launcher = lambda **_: trials
    try:
        yield
    finally:
        del plugins.instantiate_launcher


def _conclude(trials: Trials, problem: str) -> int:
    """Print the table and the best trial; return the exit code."""
    objective = trials.objective

    def metric_of(outcome: Outcome) -> str:
        return objective.metric if objective.value(outcome) is not None else ""

    shown = [number for number in range(len(trials.outcomes)) if not trials.is_repeated(number)]
    cells, outcomes = [trials.cells[n] for n in shown], [trials.outcomes[n] for n in shown]
    print_table(cells, outcomes, metric_of)
    if problem:
        print(problem, file=sys.stderr)
    if trials.best is not None:
        best = trials.best
        value = objective.value(trials.outcomes[best])
        assert value is not None
        print(f"best: trial {best + 1}, {objective.format(value)}, {trials.identities[best]}")
        print(format_command(["train", *trials.cells[best]]))
    print(f"search folder: {trials.folder}")
    return exit_code(trials.outcomes) or int(bool(problem))
