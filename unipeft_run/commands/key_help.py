"""Describe configuration keys, using the schema, for `unipeft train --help KEY`."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from typing import Any, Union

from pydantic.fields import FieldInfo

from unipeft_run.config.messages import unknown_key
from unipeft_run.config.schema import RunConfig
from unipeft_run.config.types import Section
from unipeft_run.errors import UserError

KINDS = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def describe_keys(name: str) -> str:
    """Describe a key, or every key of a section: what it accepts and what it does.

    Raises UserError for an unknown key.
    """
    known = dict(_fields(RunConfig))
    selected = {key: field for key, field in known.items() if f"{key}.".startswith(f"{name}.")}
    if not selected:
        sections = {key.rpartition(".")[0] for key in known} - {""}
        raise UserError(unknown_key(name, [*sections, *known]))
    width = max(map(len, selected))
    return "\n".join(f"{key:<{width}}  {_describe(field)}" for key, field in selected.items())


def _fields(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        if nested := _section(field.annotation):
            yield from _fields(nested, f"{key}.")
        else:
            yield key, field


def _section(annotation: Any) -> type[Section] | None:
    members = [annotation, *typing.get_args(annotation)]
    return next((m for m in members if isinstance(m, type) and issubclass(m, Section)), None)


def _describe(field: FieldInfo) -> str:
    allowed = _describe_type(field.annotation, field.metadata)
    default = "" if field.is_required() else f"; default {_plain(field.default)}"
    return f"{field.description}\n    {allowed}{default}"


def _describe_type(annotation: Any, metadata: typing.Sequence[Any] = ()) -> str:
    """Describe the values that a type accepts: choices, kind and bounds."""
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _describe_type(members[0], members[1:])
    if origin in (Union, types.UnionType):
        return " or ".join(_describe_type(member) for member in members)
    if origin is typing.Literal:
        return " | ".join(map(str, members))
    if annotation is type(None):
        return "null"
    if origin is tuple:
        return f"list of {_describe_type(members[0])}"
    bounds = dict(_bounds(metadata))
    limits = [f"{label} {_plain(bounds[sign])}" for sign, label in BOUNDS.items() if sign in bounds]
    return " ".join([KINDS.get(annotation, "section of keys"), *limits])


BOUNDS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}


def _bounds(metadata: typing.Sequence[Any]) -> Iterator[tuple[str, float]]:
    for item in metadata:
        for part in (item, *getattr(item, "metadata", ())):
            for sign in BOUNDS:
                if isinstance(bound := getattr(part, sign, None), int | float):
                    yield sign, bound


def _plain(value: Any) -> str:
    """Write a value as YAML does, and a long whole number with separators."""
    if value is None or isinstance(value, bool | list | tuple | dict):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:g}" if value < 1e6 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
