"""Class labels in data: numbers, or the names of the task's classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from unipeft_run.data.tasks.messages import describe_value
from unipeft_run.errors import UserError


class LabelError(ValueError):
    """Not a label of the task; the message names the value but not its place."""


def parse_label(value: Any, labels: Sequence[str]) -> int:
    """Return the class of `value`, a number or one of the names `labels`. Raises `LabelError`."""
    numbers = {label.casefold(): number for number, label in enumerate(labels)}
    if isinstance(value, str) and value.strip().casefold() in numbers:
        return numbers[value.strip().casefold()]
    if isinstance(value, bool) or not isinstance(value, int):
        raise LabelError(f"{describe_value(value)}, not a label: {_meaning(labels)}")
    if not 0 <= value < len(labels):
        raise LabelError(f"{describe_value(value)}, which is out of range: {_meaning(labels)}")
    return value


def _meaning(labels: Sequence[str]) -> str:
    classes = ", ".join(f"{number} {label}" for number, label in enumerate(labels))
    return f"the classes are {classes}"


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Return the class names that a Parquet file written by `datasets` records for `column`."""
    try:
        recorded = json.loads((schema.metadata or {})[b"huggingface"])
        names = recorded["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    valid = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if valid and names else None


def is_numbering(names: Sequence[str]) -> bool:
    """Whether class names are just numbers in order, "0", "1", ..., which say nothing."""
    return list(names) == [str(number) for number in range(len(names))]


def check_order(orders: Sequence[tuple[str, bool | None]]) -> None:
    """Raise `UserError` if one split names its classes in another order and one not at all.

    `orders`: for each split its place, and whether its numbers are in the task's order; None if it
    does not say. Those numbers might follow either order.
    """
    other = [where for where, in_order in orders if in_order is False]
    silent = [where for where, in_order in orders if in_order is None]
    if other and silent:
        raise UserError(
            f"{other[0]} numbers its classes in another order than the task, and {silent[0]} "
            "does not say which order it uses: write its labels as class names"
        )
