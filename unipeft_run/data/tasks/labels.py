"""Labels in data: parse numbers or names of classes, and numbers to predict; order classes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from unipeft_run.data.tasks.messages import describe_value, list_names
from unipeft_run.errors import UserError


class LabelError(ValueError):
    """A value that is not a label of the task; the message does not say where it is."""


def parse_label(value: Any, labels: Sequence[str]) -> int:
    """Return the class number of `value`, a name in `labels` or a number. Raises `LabelError`.

    A number stands for a class's position, unless names themselves are numbers, as in stars.
    """
    numbers = {label.casefold(): number for number, label in enumerate(labels)}
    if isinstance(value, str | int) and (name := _word(value).casefold()) in numbers:
        return numbers[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise LabelError(f"{describe_value(value)}, not a label: {_list_classes(labels)}")
    if not 0 <= value < len(labels) or any(map(is_number_name, labels)):
        raise LabelError(f"{describe_value(value)}, which is out of range: {_list_classes(labels)}")
    return value


def parse_word(value: Any) -> str:
    """Return a label as a word: text, a whole number, or true and false. Raises `LabelError`."""
    if not isinstance(value, str | int) or not (word := _word(value)):
        raise LabelError(f"{describe_value(value)}, not a label: give a word or a whole number")
    return word


def parse_number(value: Any) -> float:
    """Return a label as a number; text may spell it, as in CSV. Raises `LabelError`."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise LabelError(f"{describe_value(value)}, not a number")
    return number


def is_number_name(name: str) -> bool:
    """Return whether a class name is a number, which a position could be mistaken for."""
    try:
        float(name)
    except ValueError:
        return False
    return True


def order_labels(words: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct labels, numbers by value, words by name, ignoring case."""
    names: dict[str, str] = {}
    for word in sorted(set(words)):
        names.setdefault(word.casefold(), word)
    if all(name.removeprefix("-").isdecimal() for name in names):
        return tuple(sorted(names.values(), key=int))
    if all(is_number_name(name) and math.isfinite(float(name)) for name in names):
        return tuple(sorted(names.values(), key=float))
    return tuple(names[name] for name in sorted(names))


def _word(value: str | int) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _list_classes(labels: Sequence[str]) -> str:
    positions = not any(map(is_number_name, labels))
    classes = [f"{n} {label}" if positions else label for n, label in enumerate(labels)]
    return f"the classes are {list_names(classes)}"


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Return the class names of `column` recorded in a Parquet file written by `datasets`."""
    try:
        recorded = json.loads((schema.metadata or {})[b"huggingface"])
        names = recorded["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    valid = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if valid and names else None


def is_numbering(names: Sequence[str]) -> bool:
    """Return whether class names are merely the numbers "0", "1", ... in order."""
    return list(names) == [str(number) for number in range(len(names))]


def check_order(orders: Sequence[tuple[str, bool | None]]) -> None:
    """Raise `UserError` if one split orders its classes differently and another does not say.

    `orders` holds the place of each split and whether its class numbers are in the task's order, or
    None if its file does not name the classes, so that its numbers might follow either order.
    """
    other = [where for where, in_order in orders if in_order is False]
    unknown = [where for where, in_order in orders if in_order is None]
    if other and unknown:
        raise UserError(
            f"{other[0]} numbers its classes in another order than the task, and {unknown[0]} "
            "does not say which order it uses: write its labels as class names"
        )
