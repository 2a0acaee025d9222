"""Turn plain data into the typed configuration, or explain in one sentence what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ValidationError, create_model
from pydantic_core import ErrorDetails

from unipeft_run.config.declarations import declaration_of, is_ours
from unipeft_run.config.messages import Illegal, options, shorten, unknown_choice, unknown_key
from unipeft_run.config.schema import AXES, SLOTS, PartConfig, RunConfig, TaskConfig
from unipeft_run.config.types import Section
from unipeft_run.errors import UserError
from unipeft_run.extensions import config_dirs, make_importable

SectionT = TypeVar("SectionT", bound=Section)
REQUIREMENTS = {  # pydantic's error types -> the end of "must be ..."
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list, as in [a,b]",
    "dict_type": "a section of keys",
    "mapping_type": "a section of keys",
    "model_type": "a section of keys",
    "model_attributes_type": "a section of keys",
    "finite_number": "a finite number",
    "too_short": "a list of {min_length} values",
    "too_long": "a list of {max_length} values",
    "greater_than": "greater than {gt:.12g}",
    "greater_than_equal": "at least {ge:.12g}",
    "less_than": "less than {lt:.12g}",
    "less_than_equal": "at most {le:.12g}",
    "list_type": "a list, as in [a,b]",
}
MARKERS = {"form": "gives", "composition": "takes"}  # the attribute that marks a class of the axis
EXAMPLES = {"bottleneck": 8, "scale": 4}


def validate(data: Mapping[str, Any]) -> RunConfig:
    """Validate `data` against the schema, and forms and compositions against their declarations.

    Raises UserError with the key, its value and what is allowed.
    """
    for path in find_missing(data):
        raise missing_error(path)
    config = check(RunConfig, data)
    config = config.model_copy(update={"task": check_task(config.task)})
    for name, slot in config.slots().items():
        check_part(name, "form", slot.form)
        check_part(name, "composition", slot.composition)
        check_insertion(name, slot.insertion)
    return config


def check_insertion(slot: str, name: str) -> None:
    """Check that `name` is an insertion of unipeft. Raises UserError."""
    if name in (names := options("insertion")):
        return
    problem = unknown_choice(f"{slot}.insertion", name, names)
    own = any((folder / "insertion").is_dir() for folder in config_dirs())
    raise UserError(f"{problem}; --config-dir cannot add an insertion" if own else problem)


def check_part(slot: str, axis: str, part: PartConfig) -> None:
    """Check that `part` names a class of this axis with valid keywords. Raises UserError."""
    declared, path = declaration_of(part.target), f"{slot}.{axis}"
    make_importable(part.target)
    if declared is None:  # declared nowhere: its constructor checks the keywords
        return
    if MARKERS[axis] not in declared.attributes:
        names = ", ".join(options(axis))
        raise UserError(
            f"{path}: {part.target} is not a {axis}; give {axis}@{slot}= one of {names}"
        )
    if not part.partial:
        raise UserError(f"{path}._partial_=false: must be true, as in its YAML file")
    if declared.keywords is not None:
        check(declared.keywords, part.keywords, path)


def check(schema: type[SectionT], data: Any, path: str = "") -> SectionT:
    """Validate a section whose dotted key is `path`. Raises UserError."""
    try:
        return schema.model_validate(data)
    except ValidationError as problem:
        errors = problem.errors(include_url=False)
    raise _explain(errors, schema, data, path)


def find_missing(node: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted keys that have no value yet (???)."""
    if node == "???":
        yield path
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from find_missing(value, f"{path}.{key}" if path else str(key))


def missing_error(path: str) -> UserError:
    """Say what to give for a key that has no value."""
    slot, _, key = path.partition(".")
    if slot not in SLOTS:
        return UserError(f"{path} has no value; give one, as in {path}=...")
    if key in AXES:
        names = ", ".join(options(key))
        return Illegal(f"slot {slot} has no {key}; give {key}@{slot}= one of {names}")
    if key.partition(".")[0] in AXES:
        return UserError(f"{path} has no value; give one, as in {path}=...")
    return Illegal(f"{path} has no value; give one, as in {path}={EXAMPLES.get(key, 8)}")


def _explain(
    errors: Sequence[ErrorDetails], schema: type[Section], data: Any, prefix: str
) -> UserError:
    """Describe the first wrong key; pydantic reports an error for each member of a union."""
    error = errors[0]
    keys = _known_keys(error["loc"], data)
    path = ".".join([*([prefix] if prefix else []), *map(str, keys)])
    value, kind = _at(data, keys), error["type"]
    if kind == "missing":
        return missing_error(".".join([path, *map(str, error["loc"][len(keys) :])]).lstrip("."))
    if kind == "extra_forbidden":
        siblings = [f"{prefix}.{name}".lstrip(".") for name in _siblings(schema, keys)]
        return UserError(unknown_key(path, siblings))
    if value is None:
        return UserError(f"{path}: must not be null")
    if choices := _choices(schema, keys):
        return UserError(unknown_choice(path, value, choices))
    if kind == "string_pattern_mismatch":
        return UserError(_malformed(path, value))
    same_key = [other for other in errors if _known_keys(other["loc"], data) == keys]
    if len(same_key) > 1:
        allowed = " or ".join(dict.fromkeys(map(_alternative, same_key)))
        return UserError(f"{path}={shorten(_as_yaml(value))}: must be {allowed}")
    if kind == "literal_error":
        return UserError(f"{path}={shorten(value)}: must be {_alternative(error)}")
    template = REQUIREMENTS.get(kind)
    if template is None:
        return UserError(f"{path}={shorten(value)}: {error['msg'].removeprefix('Value error, ')}")
    requirement = template.format(**error.get("ctx", {}))
    if kind == "string_type" and not isinstance(value, list | dict):
        requirement += f"; quote it, as in \"{path}='{_as_yaml(value)}'\""
    return UserError(f"{path}={shorten(_as_yaml(value))}: must be {requirement}")


def _malformed(path: str, value: Any) -> str:
    if not str(value).strip():
        return f"{path} is empty; give a value, as in {path}=NAME, or leave it out"
    return f"{path}={shorten(value)}: must be letters, digits, _, - and ."


def _alternative(error: ErrorDetails) -> str:
    """Describe what one member of a union accepts."""
    context = error.get("ctx", {})
    if error["type"] == "literal_error":
        return str(context["expected"]).replace("'", "").replace(" or ", ", ")
    return REQUIREMENTS.get(error["type"], "another value").format(**context)


def _as_yaml(value: Any) -> Any:
    """Format booleans and floats as YAML does."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, float):
        return value
    text = f"{value:g}"
    return f"{text}.0" if text.lstrip("-").isdigit() else text


def _known_keys(location: Sequence[int | str], data: Any) -> list[int | str]:
    """Return the part of pydantic's location that is in the data; the rest names union members."""
    keys: list[int | str] = []
    for key in location:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            break
        keys.append(key)
    return keys


def _at(data: Any, keys: Sequence[int | str]) -> Any:
    for key in keys:
        data = data[key]
    return data


def _siblings(schema: type[Section], keys: Sequence[int | str]) -> list[str]:
    """List the dotted names of the keys in the section of the key at `keys`."""
    section, parents = schema, [str(key) for key in keys[:-1]]
    for key in parents:
        section = _section(section, key) or section
    names = [field.alias or name for name, field in section.model_fields.items()]
    return [".".join([*parents, name]) for name in names]


def _section(schema: type[Section], key: str) -> type[Section] | None:
    field = schema.model_fields.get(key)
    kinds = [field.annotation, *get_args(field.annotation)] if field else []
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, Section)), None)


def _choices(schema: type[Section], keys: Sequence[int | str]) -> tuple[Any, ...]:
    """Return the allowed values of the field at `keys` if it is a Literal, else ()."""
    section = schema
    for key in keys[:-1]:
        section = _section(section, str(key)) or section
    field = section.model_fields.get(str(keys[-1])) if keys else None
    return literals(field.annotation) if field else ()


def literals(annotation: Any) -> tuple[Any, ...]:
    """Return the values of a Literal type, also inside Annotated; () for any other type."""
    args = get_args(annotation)
    if getattr(annotation, "__metadata__", None):
        return literals(args[0])
    return args if args and all(isinstance(value, str) for value in args) else ()


def check_task(task: TaskConfig) -> TaskConfig:
    """Check the keys of a task against the fields of its class. Raises UserError.

    Return the task with the words of its lists as text: labels=[1,2] names the classes "1" and "2".
    """
    if not is_ours(task.target):  # defined outside this package: left to its constructor
        make_importable(task.target)
        return task
    from unipeft_run.data.tasks.base import Task
    from unipeft_run.data.tasks.build import build_task

    module, _, name = task.target.rpartition(".")
    cls = getattr(import_module(module), name)
    if not issubclass(cls, Task):
        raise UserError(f"task._target_: {task.target} is not a task")
    checked = check(task_schema(cls), task.keywords, "task")
    task = task.model_copy(update=_words(checked, task.model_extra or {}))
    build_task(task)
    return task


def _words(checked: Section, given: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the lists in `given` that `checked` has as text."""
    lists = {key: value for key, value in given.items() if isinstance(value, list)}
    found = {key: getattr(checked, key) for key in lists}
    return {
        key: list(words)
        for key, words in found.items()
        if all(isinstance(word, str) for word in words) and list(words) != lists[key]
    }


@cache
def task_schema(cls: Any) -> type[Section]:
    """Turn the fields of a task's dataclass into a schema; `limit` is a separate section."""
    hints = get_type_hints(cls, include_extras=True)
    fields = [field for field in dataclasses.fields(cls) if field.name != "limit"]
    schema: type[Section] = create_model(
        cls.__name__,
        __base__=Section,
        **{f.name: (hints[f.name], ... if _required(f) else None) for f in fields},  # type: ignore[call-overload]
    )
    return schema


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
