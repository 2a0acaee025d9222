"""What our forms and compositions declare in their source, read without importing torch.

A form's constructor is the schema of its YAML: the keywords, their types and their defaults. Its
class attributes say where it is legal. `--cfg job` and a wrong value must answer within a second,
and importing torch alone takes longer, so the source is parsed instead of imported.
"""

from __future__ import annotations

import ast
import typing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import create_model

from unipeft_run.config import types
from unipeft_run.config.types import Section

PACKAGE = Path(__file__).parent.parent
NAMES: dict[str, Any] = {**vars(typing), **vars(types)}  # what an annotation may mention


@dataclass(frozen=True)
class Declaration:
    """A class of ours: its constructor's keywords as a schema, and its literal attributes."""

    keywords: type[Section]
    attributes: dict[str, Any]


def is_ours(target: str) -> bool:
    """Tell whether `target` names a class that is defined in this package.

    A prefix is not enough: `unipeft_run.module.os.system` has ours and is not a class of ours.
    """
    return _find(target) is not None


@cache
def declaration_of(target: str) -> Declaration | None:
    """Read the declaration of one of our forms or compositions; None for any other class."""
    found = _find(target)
    if found is None:
        return None
    attributes: dict[str, Any] = {}
    for base in (b for b in _bases(found, target) if b is not None):
        attributes |= base.attributes
    attributes |= dict(_attributes(found))
    constructor = next(
        (n for n in found.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None
    )
    fields = dict(_keywords(constructor)) if constructor else {}
    schema: type[Section] = create_model(found.name, __base__=Section, **fields)
    return Declaration(schema, attributes)


@cache
def _find(target: str) -> ast.ClassDef | None:
    module, _, name = target.rpartition(".")
    tree = _parsed(module)
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef)) if tree else ()
    return next((node for node in classes if node.name == name), None)


@cache
def _parsed(module: str) -> ast.Module | None:
    """The source of a module of this package; None for anything else."""
    package, *parts = module.split(".")
    if package != PACKAGE.name or not all(part.isidentifier() for part in parts):
        return None
    path = PACKAGE.joinpath(*parts)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else None


def _bases(node: ast.ClassDef, target: str) -> list[Declaration | None]:
    """The declarations of the bases, found in the same module or through its imports."""
    module = target.rpartition(".")[0]
    tree = _parsed(module)
    assert tree is not None
    homes = {
        alias.asname or alias.name: f"{statement.module}.{alias.name}"
        for statement in tree.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    names = [base.id for base in node.bases if isinstance(base, ast.Name)]
    return [declaration_of(homes.get(name, f"{module}.{name}")) for name in names]


def _attributes(node: ast.ClassDef) -> typing.Iterator[tuple[str, Any]]:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            assert statement.value is not None, f"{node.name}.{statement.target.id} has no value"
            yield statement.target.id, ast.literal_eval(statement.value)


def _keywords(constructor: ast.FunctionDef) -> typing.Iterator[tuple[str, Any]]:
    """The keyword-only arguments: name, and type with default as pydantic wants them."""
    given = constructor.args
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        assert argument.annotation is not None, f"{argument.arg} needs a type"
        kind = eval(ast.unparse(argument.annotation), NAMES)  # our own source
        yield argument.arg, (kind, ... if default is None else ast.literal_eval(default))
