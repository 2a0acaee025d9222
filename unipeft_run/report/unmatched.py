"""Say which runs match no row of a published table, and how they differ from the nearest row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unipeft_run.config.schema import SLOTS
from unipeft_run.report.cells import group_by_cell
from unipeft_run.report.differences import section_of, tabulate_differences
from unipeft_run.runs.printable import printable
from unipeft_run.runs.reader import RunRecord

COMPARED = (*SLOTS, "unfreeze", "peft", "backbone")  # sections that decide which row a run is of
DESCRIBED, KEYS = 4, 3  # configurations with their differences; differences of each

Config = Mapping[str, Any]
Differences = dict[str, tuple[str, str]]  # key: values of the row and of the run


def describe_unmatched(runs: Sequence[RunRecord], rows: Mapping[str, Config]) -> str:
    """Describe finished runs of one task that match no row. `rows`: the configuration of each."""
    groups = group_by_cell(runs)
    parts = [_describe(group, rows) for group in groups[:DESCRIBED]]
    if more := [run for group in groups[DESCRIBED:] for run in group]:
        parts.append(_list_labels(more))
    count = f"1 run of {runs[0].metrics['task']} matches"
    if len(runs) > 1:
        count = f"{len(runs)} runs of {runs[0].metrics['task']} match"
    return printable(f"{count} no row: {'; '.join(parts)}")


def _describe(group: Sequence[RunRecord], rows: Mapping[str, Config]) -> str:
    run, labels = group[0], _list_labels(group)
    method = run.metrics["method"]
    own = {row: config for row, config in rows.items() if config["method"] == method}
    if not own:
        return f"{labels} (no row has method {method})"
    found = {row: _find_differences(config, run.config) for row, config in own.items()}
    row = min(found, key=lambda name: len(found[name]))
    if not found[row]:
        return labels
    theirs, ours = zip(*found[row].values(), strict=True)
    verb = "has" if len(group) == 1 else "have"
    return (
        f"{labels} {verb} {_join(found[row], ours)}, where row {row!r} has "
        f"{_join(found[row], theirs)}"
    )


def _join(keys: Iterable[str], values: Sequence[str]) -> str:
    """Write the first settings; those without a value are left out, unless none has one."""
    pairs = list(zip(keys, values, strict=True))[:KEYS]
    given = [(key, value) for key, value in pairs if value != "null"]
    return " ".join(f"{key}={value}" for key, value in given or pairs)


def _find_differences(row: Config, run: Config) -> Differences:
    ours, theirs = tabulate_differences([row, run], ("seed",))
    keys = [key for key in dict.fromkeys([*ours, *theirs]) if section_of(key) in COMPARED]
    return {key: (ours.get(key, "null"), theirs.get(key, "null")) for key in keys}


def _list_labels(runs: Sequence[RunRecord]) -> str:
    return ", ".join(run.label for run in runs)
