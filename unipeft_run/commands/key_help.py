"""Describe configuration keys, using the schema, for `unipeft train --help KEY`."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Union

from pydantic.fields import FieldInfo

from unipeft_run.config.classes import import_class
from unipeft_run.config.declarations import declaration_of
from unipeft_run.config.design_space import load_axis_file, read_headline
from unipeft_run.config.messages import find_option, groups, options, unknown_key
from unipeft_run.config.schema import AXES, SLOTS, RunConfig, TaskConfig
from unipeft_run.config.types import Section
from unipeft_run.config.validation import literals, task_schema
from unipeft_run.config.yaml_files import load_config
from unipeft_run.errors import UserError
from unipeft_run.extensions import conf_dir

RECIPE = "the recipe of the task and scale"
SET_BY = {  # section of keys or key -> what chooses their values
    "task": "task=",
    "backbone": "the recipe, or backbone=",
    "recipe": RECIPE,
    "optim": f"optim= and {RECIPE}",
    "evaluation": f"the type of the task and {RECIPE}",
    "head": RECIPE,
    "precision": "scale=",
    **dict.fromkeys((*SLOTS, "peft", "unfreeze"), "method="),
}
NOT_SET = ("task.path", "task.data", "backbone.path")
KINDS = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def describe_keys(name: str) -> str:
    """Describe a key, or every key of a section: what it accepts and what it does.

    Raises UserError for an unknown key.
    """
    known = {key: [_describe(key, field)] for key, field in _fields(RunConfig)}
    group = name.partition("@")[0]
    if group in groups():
        known |= _describe_choices(name, group)
    selected = _select(known, name)
    if not selected or name in SLOTS or "." in name or name == "task":
        for key, text in describe_keywords():  # those of classes, read only where they may be meant
            known.setdefault(key, []).append(text)
        selected = _select(known, name)
    if not selected:
        sections = {key.rpartition(".")[0] for key in known} - {""}
        axes = [f"{axis}@{slot}" for axis in AXES for slot in SLOTS]
        raise UserError(unknown_key(name, [*sections, *known, *axes]))
    width = max(map(len, selected))
    return "\n".join(f"{key:<{width}}  {text}" for key, texts in selected.items() for text in texts)


def _select(known: Mapping[str, list[str]], name: str) -> dict[str, list[str]]:
    heads = f"{name}.", f"{name}="
    return {key: texts for key, texts in known.items() if f"{key}.".startswith(heads)}


def _describe_choices(name: str, group: str) -> dict[str, list[str]]:
    """Describe the choices of a group, such as form@attn, by the first lines of their files."""
    at = name.partition("@")[2]
    if group in AXES and at not in SLOTS:
        return {}
    return {f"{name}={option}": [read_headline(group, option)] for option in options(group)}


def describe_keywords() -> Iterator[tuple[str, str]]:
    """Yield the keys of forms, compositions and tasks, which their classes declare."""
    for axis in ("form", "composition"):
        described: dict[tuple[str, str], list[str]] = {}
        for option in options(axis):
            target = str(load_axis_file(axis, option)[axis]["_target_"])
            declared = declaration_of(target)
            if declared is None or declared.keywords is None:
                continue
            for key, field in declared.keywords.model_fields.items():
                text = _describe_keyword(declared.help.get(key, ""), field)
                described.setdefault((key, text), []).append(option)
        for (key, text), names in described.items():
            for slot in SLOTS:
                yield f"{slot}.{axis}.{key}", f"of {axis}@{slot}={', '.join(names)}: {text}"
    yield from _describe_task_keywords()


def _describe_task_keywords() -> Iterator[tuple[str, str]]:
    described: dict[tuple[str, str], list[str]] = {}
    for option in options("task"):
        content = load_config(find_option("task", option)).task
        cls = import_class("task", str(content["_target_"]))
        for key, field in task_schema(cls).model_fields.items():
            if key not in TaskConfig.model_fields:
                described.setdefault((key, _describe_keyword("", field)), []).append(option)
    for (key, text), names in described.items():
        yield f"task.{key}", f"of task={', '.join(names)}: {text}"


def _describe_keyword(text: str, field: FieldInfo) -> str:
    allowed = _describe_type(field.annotation, field.metadata)
    return "\n    ".join(filter(None, (text, allowed + _default(field))))


def key_choices() -> dict[str, list[str]]:
    """Map each key that an override can set to its values if there are few; used by completion."""
    keys = field_choices(RunConfig) | {key: [] for key, _ in describe_keywords()}
    return {key: values for key, values in keys.items() if "._" not in key}


def field_choices(schema: type[Section]) -> dict[str, list[str]]:
    """Map each key of a schema to its values if there are few."""
    return {
        key: ["true", "false"] if field.annotation is bool else list(literals(field.annotation))
        for key, field in _fields(schema)
    }


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


def _describe(key: str, field: FieldInfo) -> str:
    allowed = _describe_type(field.annotation, field.metadata)
    setter = SET_BY.get(key.partition(".")[0]) if key not in NOT_SET else None
    default = f"; set by {setter}" if setter else _default(field) or _primary_default(key)
    return f"{field.description}\n    {allowed}{default}"


def _primary_default(key: str) -> str:
    """Describe the value of a key in conf/train.yaml, if it has one."""
    content = load_config(conf_dir() / "train.yaml")
    return f"; default {_plain(content[key])}" if key in content else ""


def _default(field: FieldInfo) -> str:
    return "" if field.is_required() else f"; default {_plain(field.default)}"


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
