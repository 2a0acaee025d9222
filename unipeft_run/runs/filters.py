"""Select runs by `key=value` filters. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from unipeft_run.errors import UserError
from unipeft_run.runs.printable import printable
from unipeft_run.runs.reader import STATES, RunRecord


def select_runs(runs: Iterable[RunRecord], filters: Sequence[str]) -> list[RunRecord]:
    """Return the runs that match every `key=value` filter.

    A filter may list values (`seed=1,2`) or be a pattern (`method=lora_*`); one match is enough.
    Keys are those of the configuration (task, seed, ffn.bottleneck), and state, step, run_id.
    Raises `UserError` for a key that no run has.
    """
    found, wanted = list(runs), [_parse(text) for text in filters]
    if not wanted:
        return found
    values = [_values(run) for run in found]
    known = {key for run_values in values for key in run_values}
    for key, patterns in wanted:
        if found and key not in known:
            from unipeft_run.config.messages import nearest  # costs half a second

            near = nearest(key, sorted(known))
            hint = f"; did you mean {near}?" if near else ""
            raise UserError(f"no run has a key {printable(key, 60)}{hint}")
        if key == "state":
            _check_states(patterns)
    return [
        run
        for run, own in zip(found, values, strict=True)
        if all(any(_matches(own.get(key), p) for p in patterns) for key, patterns in wanted)
    ]


def _parse(text: str) -> tuple[str, list[str]]:
    key, equals, values = text.partition("=")
    if not (key and equals):
        raise UserError(f"{printable(text, 60)} is not a filter; write key=value, as in task=sst2")
    return key, values.split(",")


def _check_states(patterns: Iterable[str]) -> None:
    for pattern in patterns:
        if not any(_matches(state, pattern) for state in STATES):
            known = ", ".join(STATES)
            raise UserError(f"state={printable(pattern, 60)} is unknown; choose from {known}")


def _values(run: RunRecord) -> dict[str, Any]:
    """Map each dotted configuration key to its value; a section maps to its `name`."""
    own = {"state": run.state, "step": run.step, "run_id": run.folder.name}
    return {**dict(_flatten(run.config)), **own}


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield name, value.get("name", "...")
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _matches(value: Any, pattern: str) -> bool:
    if value is None or isinstance(value, bool):
        return pattern.lower() == ("null" if value is None else str(value).lower())
    if isinstance(value, int | float):
        try:
            return math.isclose(value, float(pattern))
        except ValueError:
            return fnmatchcase(str(value), pattern)
    return fnmatchcase(str(value), pattern)
