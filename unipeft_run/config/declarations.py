"""Read the declarations of forms and compositions from their source, without importing torch.

The constructor of a form is the schema of its YAML: the keywords, their types and their defaults.
Its class attributes say where it is legal. `--cfg job` and an error message must appear within a
second, and importing torch alone takes longer, so the source is parsed instead of imported. Classes
in an extension folder (see `extensions`) are read in the same way, if they declare anything.
"""

from __future__ import annotations

import ast
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import create_model

from unipeft_run.config import types
from unipeft_run.config.types import Section
from unipeft_run.extensions import config_dirs, file_stamp

PACKAGE = Path(__file__).parent.parent
_seen: list[object] = []  # the stamp of the extension folders' files
NAMES: dict[str, Any] = {**vars(typing), **vars(types)}  # the names that an annotation may use


@dataclass(frozen=True)
class Declaration:
    """One class: its constructor's keywords as a schema (None: not all typed), its attributes.

    `help` maps keywords to their descriptions under Args in the docstring.
    """

    keywords: type[Section] | None
    attributes: dict[str, Any]
    help: dict[str, str]


def is_ours(target: str) -> bool:
    """Return whether `target` names a class defined in this package.

    Comparing the prefix is not enough: `unipeft_run.module.os.system` starts with the package name.
    """
    return _find_class(target, PACKAGE) is not None


def is_extension(target: str) -> bool:
    """Return whether `target` names a class defined in an extension folder."""
    return any(_find_class(target, folder) for folder in config_dirs())


def forget_edited() -> None:
    """Forget what was read if a file of an extension folder was edited since the last call."""
    stamp = file_stamp(*config_dirs(), pattern="*.py")
    if _seen != [stamp]:
        for cached in (_declare, _find_class, _parse_module):
            cached.cache_clear()
        _seen[:] = [stamp]


def is_allowed(target: str, prefixes: str | Sequence[str]) -> bool:
    """Return whether the user allowed the class `target`, by one prefix or several."""
    each = [prefixes] if isinstance(prefixes, str) else prefixes
    return any(prefix and target.startswith(prefix) for prefix in each)


def declaration_of(target: str) -> Declaration | None:
    """Read the declaration of a form or composition of this package or an extension folder.

    None for any other class, and for an extension's class without `gives` and `takes`.
    """
    if is_ours(target):
        return _declare(target, PACKAGE)
    for folder in config_dirs():
        if _find_class(target, folder):
            return _declare_extension(target, folder)
    return None


def _declare_extension(target: str, folder: Path) -> Declaration | None:
    try:
        declared = _declare(target, folder)
    except (AssertionError, NameError, SyntaxError, TypeError, ValueError):
        return None  # not simple enough to be read without importing it
    return declared if declared and {"gives", "takes"} & declared.attributes.keys() else None


@cache
def _declare(target: str, package: Path) -> Declaration | None:
    node = _find_class(target, package)
    if node is None:
        return None
    attributes: dict[str, Any] = {}
    for base in (b for b in _bases(node, target, package) if b is not None):
        attributes |= base.attributes
    attributes |= dict(_attributes(node))
    constructor = next(
        (n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None
    )
    described = dict(_arguments(ast.get_docstring(node) or ""))
    if package != PACKAGE and not _is_typed(constructor):
        return Declaration(None, attributes, described)
    fields = dict(_keywords(constructor)) if constructor else {}
    schema: type[Section] = create_model(node.name, __base__=Section, **fields)
    return Declaration(schema, attributes, described)


def _is_typed(constructor: ast.FunctionDef | None) -> bool:
    """Return whether every keyword has a type, and none is hidden in **kwargs or inherited."""
    if constructor is None:
        return False
    arguments = constructor.args
    return arguments.kwarg is None and all(argument.annotation for argument in arguments.kwonlyargs)


@cache
def _find_class(target: str, package: Path) -> ast.ClassDef | None:
    module, _, name = target.rpartition(".")
    tree = _parse_module(module, package)
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef)) if tree else ()
    return next((node for node in classes if node.name == name), None)


@cache
def _parse_module(module: str, package: Path) -> ast.Module | None:
    """Parse a module of the package in folder `package`; None for any other name."""
    name, *parts = module.split(".")
    if name != package.name or not all(part.isidentifier() for part in parts):
        return None
    path = package.joinpath(*parts)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():
        return None
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        if package == PACKAGE:
            raise
        return None  # importing it will report the error


def _bases(node: ast.ClassDef, target: str, package: Path) -> list[Declaration | None]:
    """Read the declarations of the base classes, in the same module or through its imports."""
    module = target.rpartition(".")[0]
    tree = _parse_module(module, package)
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


def _arguments(docstring: str) -> typing.Iterator[tuple[str, str]]:
    """Yield name and description of each argument under Args: in a docstring."""
    _, _, listed = docstring.partition("Args:\n")
    for names, text in re.findall(r"^    ([\w, ]+): (.*(?:\n {8}.*)*)", listed, re.MULTILINE):
        for name in names.split(", "):
            yield name, " ".join(text.split())


def _keywords(constructor: ast.FunctionDef) -> typing.Iterator[tuple[str, Any]]:
    """Yield the name of each keyword-only argument, with its (type, default) for pydantic."""
    arguments = constructor.args
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        assert argument.annotation is not None, f"{argument.arg} needs a type"
        kind = eval(ast.unparse(argument.annotation), NAMES)  # safe: trusted source
        yield argument.arg, (kind, ... if default is None else ast.literal_eval(default))
