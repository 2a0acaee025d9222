"""Predictions and configurations of all runs as JSON, for the part of the page that compares two.

Examples are stored once per group, since all its runs predict the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from unipeft_run.evaluation.metrics.by_name import is_lower_better
from unipeft_run.report.cells import Group
from unipeft_run.report.differences import as_mapping, tabulate_differences
from unipeft_run.runs.printable import printable, printable_lines
from unipeft_run.runs.reader import RunRecord, is_number
from unipeft_run.runs.reading import UnreadableFile

ERRORS = "squared error"  # begins how errors per example were computed
LONGEST = 1000  # characters of a prediction or reference
# characters that end a script element, start a comment or end a line of JavaScript
UNSAFE = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


def collect_predictions(groups: Sequence[Group], limit: int) -> list[dict[str, Any]]:
    """Collect the first `limit` predictions of every run, by group.

    Groups without any are left out, and runs that predict other examples than the first.
    """
    collected = (_collect_group(group, limit) for group in groups)
    return [group for group in collected if group["runs"]]


def encode_json(data: Any) -> str:
    """Encode `data` for a script element of type application/json: nothing in it can end one."""
    return json.dumps(data, separators=(",", ":")).translate(UNSAFE)


def _collect_group(group: Group, limit: int) -> dict[str, Any]:
    examples: list[list[str]] = []
    runs = []
    differences = tabulate_differences([run.settings for run in group.runs], ())
    for run, config in zip(group.runs, differences, strict=True):
        rows = _read_rows(run, limit)
        keys = [[_shorten(row.get("id")), _shorten(row.get("reference"))] for row in rows]
        examples = examples or keys
        if rows and keys == examples:
            name = {"label": _label(group, run), "cell": run.cell, "config": config}
            runs.append({**name, **_scores(group, run, rows)})
    title = printable(group.title, 200)
    return {"title": title, "lower": _lower_wins(group.runs[0]), "examples": examples, "runs": runs}


def _lower_wins(run: RunRecord) -> bool:
    """Return whether the lower score of an example is better: an error, not a rate."""
    signature = str(as_mapping(run.metrics.get("signatures")).get("per_example", ""))
    name, _, rest = signature.partition(": ")  # a task with own metrics writes no name
    return is_lower_better(name) or (rest or name).startswith(ERRORS)


def _label(group: Group, run: RunRecord) -> str:
    cell = next(cell for cell in group.cells if run in cell.runs)
    seed = printable(run.config.get("seed"), 20)
    return f"{printable(cell.label, 120)}, seed {seed} ({printable(run.folder.name, 40)})"


def _scores(group: Group, run: RunRecord, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    score = run.metrics[run.metrics["primary"]]
    return {
        "metric": printable(group.primary, 60),
        "score": round(score, 2) if is_number(score) else None,
        "predictions": [_shorten(row.get("prediction")) for row in rows],
        "scores": [_round(row.get("score")) for row in rows],
    }


def _read_rows(run: RunRecord, limit: int) -> list[dict[str, Any]]:
    try:
        return list(islice(run.predictions("test"), limit))
    except UnreadableFile:
        return []


def _round(value: Any) -> float | None:
    return round(value, 2) if is_number(value) else None


def _shorten(value: Any) -> str:
    plain = value if isinstance(value, str) else printable(value)
    return printable_lines(plain if len(plain) <= LONGEST else f"{plain[:LONGEST]}…")
