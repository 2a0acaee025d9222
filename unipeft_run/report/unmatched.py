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
Settings = Mapping[str, str]


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
    row = min(found, key=lambda name: len(found[name][0]))
    keys, theirs, ours = found[row]
    if not keys:
        return labels
    verb = "has" if len(group) == 1 else "have"
    return f"{labels} {verb} {_write(keys, ours)}, where row {row!r} has {_write(keys, theirs)}"


def _write(keys: Iterable[str], settings: Settings) -> str:
    """Write the first settings of `keys`, an empty slot as one.

    Settings without a value are left out, unless none has one.
    """
    empty = {slot for slot in SLOTS if settings.get(slot) == "null"}
    pairs = [(key, settings.get(key, "null")) for key in keys if key not in SLOTS or key in empty]
    pairs = [(key, value) for key, value in pairs if key in empty or section_of(key) not in empty]
    given = [(key, value) for key, value in pairs if key in empty or value != "null"]
    return " ".join(f"{key}={value}" for key, value in (given or pairs)[:KEYS])


def _find_differences(row: Config, run: Config) -> tuple[list[str], Settings, Settings]:
    """Return the keys that differ, and the settings of the row and of the run."""
    theirs, ours = tabulate_differences([row, run], ("seed",))
    keys = [key for key in dict.fromkeys([*theirs, *ours]) if section_of(key) in COMPARED]
    return keys, theirs, ours


def _list_labels(runs: Sequence[RunRecord]) -> str:
    return ", ".join(run.label for run in runs)
