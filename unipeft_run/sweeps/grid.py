"""Many runs from one command line: the cells of the grid, what is wrong with some, the table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hydra import version
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from unipeft_run.config import compose, implied
from unipeft_run.config.experiments import expand
from unipeft_run.config.messages import Illegal, conf_dir
from unipeft_run.errors import UserError
from unipeft_run.runs.outcome import Outcome, ended, exit_code
from unipeft_run.sweeps.engines import Engine, in_rounds
from unipeft_run.sweeps.engines.worker import Job

Check = Callable[[DictConfig, Sequence[str]], Hashable]  # identifies the run, or UserError
Cell = list[str]
WIDEST = 10_000  # characters of a line: a table is as wide as it is, no cell of it wrapped


def multirun(config_name: str, overrides: Sequence[str], job: Job, check: Check) -> int:
    """Run every cell of the grid that means something; print the table; return the exit code.

    A word that is not known anywhere is a `UserError`, before anything has run.
    """
    hydra, settings, rows = grid(config_name, overrides)
    cells = [words for _, words in rows]
    outcomes = _judge(config_name, settings, cells, check)
    legal = [number for number, outcome in enumerate(outcomes) if outcome is None]
    if not legal:
        reasons = dict.fromkeys(outcome["error"] for outcome in outcomes if outcome)
        raise UserError("\n".join(list(reasons)[:3]))
    print(f"{len(legal)} of {len(cells)} cells to run", file=sys.stderr)
    found = iter(_launch(hydra, config_name, settings, [cells[n] for n in legal], job))
    ends = [outcome or next(found) for outcome in outcomes]
    print_table(cells, ends)
    return exit_code(ends)


def grid(
    config_name: str, overrides: Sequence[str]
) -> tuple[Hydra, list[str], list[tuple[str, Cell]]]:
    """Hydra, its own words among `overrides`, and the cells that the others make.

    A cell of an experiment has the name of its row. Raises `UserError`.
    """
    settings = [word for word in overrides if word.lstrip("+").startswith(("hydra.", "hydra/"))]
    hydra = _hydra()
    given = _expand(hydra, config_name, [word for word in overrides if word not in settings])
    rows = [row for words in given for row in expand(words, settings)]
    return hydra, settings, [(name, [*cell, *implied(cell)]) for name, cell in rows]


def _hydra() -> Hydra:
    version.setbase("1.3")
    hydra = Hydra.create_main_hydra2("unipeft", create_config_search_path(str(conf_dir())))
    GlobalHydra.instance().clear()  # there is one at a time, and `compose` makes its own
    return hydra


def _expand(hydra: Hydra, config_name: str, overrides: Sequence[str]) -> list[Cell]:
    """The overrides of each cell: a=1,2 b=3,4 are four cells, the last word moving fastest."""
    try:
        parsed = OverridesParser.create(hydra.config_loader).parse_overrides(list(overrides))
        return BasicSweeper.split_arguments(parsed, None)[0]
    except HydraException:
        one = [word for word in overrides if not word.startswith("experiment=")]
        compose(one, config_name)  # says what it is
        raise


def _judge(
    config_name: str, settings: Sequence[str], cells: Sequence[Cell], check: Check
) -> list[Outcome | None]:
    """An outcome for each cell that is not to be run, None for the others."""
    seen: dict[Hashable, int] = {}
    verdicts: list[Outcome | None] = []
    for number, cell in enumerate(cells):
        try:
            identity = check(compose([*settings, *cell], config_name), cell)
        except Illegal as reason:
            verdicts.append(ended("illegal", str(reason)))
            continue
        twin = seen.setdefault(identity, number)
        same = ended("equal", f"the same run as {' '.join(cells[twin])}")
        verdicts.append(None if twin == number else same)
    return verdicts


def _launch(
    hydra: Hydra, config_name: str, settings: Sequence[str], cells: Sequence[Cell], job: Job
) -> list[Outcome]:
    """Hand the cells to Hydra's launcher; an outcome for each, whatever becomes of its workers."""
    config = hydra.compose_config(
        config_name,
        [*settings, *cells[0]],
        run_mode=RunMode.MULTIRUN,
        with_log_configuration=False,
    )
    with TemporaryDirectory(prefix="unipeft-") as folder:
        engine = Engine(hydra.config_loader, config, job, Path(folder))
        return in_rounds(engine.launch, cells, shared_fate=engine.shared_fate)


def print_table(cells: Sequence[Cell], outcomes: Sequence[Outcome]) -> None:
    """What differs between the cells, and how each ended, on stdout; reasons on stderr."""
    from rich.console import Console
    from rich.table import Table

    common = set.intersection(*(set(cell) for cell in cells)) if len(cells) > 1 else set()
    table = Table("cell", "state", "metric", "seconds", box=None, header_style="bold")
    for cell, outcome in zip(cells, outcomes, strict=True):
        label = " ".join(word for word in cell if word not in common) or " ".join(cell)
        table.add_row(label, outcome["state"], _metric(outcome), f"{outcome['seconds']:.0f}")
        if outcome["error"]:
            print(f"{outcome['state']}: {label}: {outcome['error']}", file=sys.stderr)
    Console(width=WIDEST).print(table, highlight=False)


def _metric(outcome: Outcome) -> str:
    name = outcome["metrics"].get("primary", "")
    return f"{name} {outcome['metrics'][name]:.2f}" if name else ""
