"""Many runs from one command line: expand the grid, check its cells, run them, print the table."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hydra import version
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode

from unipeft_run.config import compose, implied_overrides
from unipeft_run.config.experiments import expand
from unipeft_run.config.hydra_errors import explain_compose_error
from unipeft_run.config.messages import Illegal
from unipeft_run.errors import UserError
from unipeft_run.extensions import conf_dir
from unipeft_run.runs.outcome import Outcome, exit_code, make_outcome
from unipeft_run.sweeps.check import Check
from unipeft_run.sweeps.engines import Engine, launch_in_rounds
from unipeft_run.sweeps.engines.worker import Job
from unipeft_run.sweeps.hydra_settings import check_hydra_settings, is_hydra_setting, is_search
from unipeft_run.sweeps.leaderboard import print_leaderboard
from unipeft_run.sweeps.table import Cell, own_labels, print_table

PrintResults = Callable[[Sequence[Cell], Sequence[Outcome]], None]


def run_grid(
    config_name: str,
    overrides: Sequence[str],
    job: Job,
    check: Check,
    print_results: PrintResults = print_table,
) -> int:
    """Run every legal cell, print the results, return the exit code.

    Raises `UserError` before anything runs: for an unknown key, and if no cell is legal.
    """
    check_hydra_settings(overrides, is_grid=True)
    if is_search(overrides):
        return _search(config_name, overrides, job, check)
    hydra, settings, rows = expand_grid(config_name, overrides)
    cells = [cell for _, cell in rows]
    verdicts, finished = _check_cells(config_name, settings, cells, check)
    legal = [number for number, verdict in enumerate(verdicts) if verdict is None]
    if not legal:
        reasons = dict.fromkeys(verdict["error"] for verdict in verdicts if verdict)
        raise UserError("\n".join(list(reasons)[:3]))
    print(_summarise(verdicts, len(finished)), file=sys.stderr)
    labels = own_labels(cells)
    todo = [(labels[number], cells[number]) for number in legal]
    done = [position for position, number in enumerate(legal) if number in finished]
    launched = iter(_launch(hydra, config_name, settings, todo, job, done))
    outcomes = [verdict or next(launched) for verdict in verdicts]
    print_results(cells, outcomes)
    print_leaderboard(rows, outcomes, overrides, settings)
    return exit_code(outcomes)


def _search(config_name: str, overrides: Sequence[str], job: Job, check: Check) -> int:
    from unipeft_run.sweeps.search import run_search

    if config_name != "train":
        raise UserError("searches train runs; evaluate them with run=DIR,DIR")
    settings = [override for override in overrides if is_hydra_setting(override)]
    others = [override for override in overrides if not is_hydra_setting(override)]
    return run_search(_create_hydra(), settings, others, job, check)


def expand_grid(
    config_name: str, overrides: Sequence[str]
) -> tuple[Hydra, list[str], list[tuple[str, Cell]]]:
    """Return Hydra, its own settings among `overrides`, and the cells, each with a name.

    A cell's name is its row in an experiment, else empty. Raises `UserError`.
    """
    settings = [override for override in overrides if is_hydra_setting(override)]
    hydra = _create_hydra()
    swept = _split_lists(hydra, config_name, [o for o in overrides if o not in settings])
    rows = [row for cell in swept for row in expand(cell, settings)]
    return hydra, settings, [(name, [*cell, *implied_overrides(cell)]) for name, cell in rows]


def _create_hydra() -> Hydra:
    version.setbase("1.3")
    hydra = Hydra.create_main_hydra2("unipeft", create_config_search_path(str(conf_dir())))
    GlobalHydra.instance().clear()  # only one may exist, and `compose` creates another
    return hydra


def _split_lists(hydra: Hydra, config_name: str, overrides: Sequence[str]) -> list[Cell]:
    """Split lists into cells: a=1,2 b=3,4 makes four, the last key varying fastest."""
    try:
        parsed = OverridesParser.create(hydra.config_loader).parse_overrides(list(overrides))
        _refuse_ranges(parsed)
        return BasicSweeper.split_arguments(parsed, None)[0]
    except HydraException as error:
        one = [override for override in overrides if not override.startswith("experiment=")]
        if len(one) == len(overrides):  # an experiment may bring the task and the method
            compose(one, config_name)  # raises a UserError that names the override
        raise explain_compose_error(error, one, config_name, compose) from None


def _refuse_ranges(overrides: Sequence[Override]) -> None:
    for override in overrides:
        if override.is_interval_sweep():
            raise UserError(
                f"{override.input_line}: a grid takes lists of values; ranges need a sweeper, such "
                "as hydra/sweeper=optuna"
            )


def _check_cells(
    config_name: str, settings: Sequence[str], cells: Sequence[Cell], check: Check
) -> tuple[list[Outcome | None], set[int]]:
    """Return an outcome for each cell that will not run (illegal or equal), None for the rest.

    The second value holds the numbers of the cells that are finished already.
    """
    finished: set[int] = set()
    seen: dict[Hashable, int] = {}
    verdicts: list[Outcome | None] = []
    for number, cell in enumerate(cells):
        try:
            run = check(compose([*settings, *cell], config_name), cell)
        except Illegal as reason:
            verdicts.append(make_outcome("illegal", str(reason)))
            continue
        twin = seen.setdefault(run.identity, number)
        if twin == number and run.is_finished:
            finished.add(number)
        equal = make_outcome("equal", f"the same run as {' '.join(cells[twin])}")
        verdicts.append(None if twin == number else equal)
    return verdicts, finished


def _summarise(verdicts: Sequence[Outcome | None], finished: int) -> str:
    """Return, for example, `6 cells: 3 to run, 2 finished before, 1 illegal`."""
    states = Counter(verdict["state"] for verdict in verdicts if verdict)
    counts = {"to run": len(verdicts) - states.total() - finished, "finished before": finished}
    parts = [f"{count} {name}" for name, count in (counts | states).items() if count]
    return f"{len(verdicts)} cell{'s' * (len(verdicts) != 1)}: {', '.join(parts)}"


def _launch(
    hydra: Hydra,
    config_name: str,
    settings: Sequence[str],
    labelled: Sequence[tuple[str, Cell]],
    job: Job,
    finished: Collection[int],
) -> list[Outcome]:
    """Run the labelled cells on Hydra's launcher; return an outcome for each.

    A cell whose worker dies has one too.
    """
    labels, cells = [label for label, _ in labelled], [cell for _, cell in labelled]
    config = hydra.compose_config(
        config_name,
        [*settings, *cells[0]],
        run_mode=RunMode.MULTIRUN,
        with_log_configuration=False,
    )
    with TemporaryDirectory(prefix="unipeft-") as folder:
        engine = Engine(hydra.config_loader, config, job, Path(folder), cells, labels, finished)
        return launch_in_rounds(engine.launch, cells, shared_fate=engine.shared_fate)
