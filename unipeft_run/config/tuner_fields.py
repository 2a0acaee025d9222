"""Read the configuration classes of the PEFT library from their source, without importing it.

Importing the library takes seconds, because it imports torch and transformers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from unipeft_run.errors import UserError

REGISTER = "register_peft_method"  # how the library lists its methods


def require_library() -> Path:
    """Return the folder of the PEFT library. Raises UserError if it is not installed."""
    spec = find_spec("peft")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the methods peft/... need the PEFT library, which is not installed; "
            "install it with: pip install 'unipeft[peft]'"
        )
    return Path(spec.submodule_search_locations[0])


def find_kinds() -> Mapping[str, tuple[Path, str]]:
    """Return the library's methods: type -> file and name of its configuration class."""
    return _find_kinds(require_library())


def list_fields(kind: str) -> list[str]:
    """Return the fields of the configuration class of type `kind`."""
    file, name = find_kinds()[kind]
    return list(dict.fromkeys(_fields(file, name)))


@cache
def _find_kinds(library: Path) -> dict[str, tuple[Path, str]]:
    """Find the calls `register_peft_method(name=..., config_cls=...)`."""
    kinds = {}
    for file in sorted(library.glob("tuners/*/__init__.py")):
        for node in ast.walk(_parse(file)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == REGISTER:
                given = {keyword.arg: keyword.value for keyword in node.keywords}
                name, cls = given["name"], given["config_cls"]
                assert isinstance(name, ast.Constant) and isinstance(cls, ast.Name)
                kinds[str(name.value).upper()] = (file, cls.id)
    return kinds


def _fields(file: Path, name: str) -> Iterator[str]:
    """Yield the annotated fields of a dataclass and of its bases, imported ones included."""
    found = _find_class(file, name)
    if found is None:
        return
    file, node = found
    for base in node.bases:
        if isinstance(base, ast.Name):
            yield from _fields(file, base.id)
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id


def _find_class(file: Path, name: str) -> tuple[Path, ast.ClassDef] | None:
    """Find a class in `file`, or where `file` imports it from within the library."""
    for node in _parse(file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return file, node
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            source = _resolve(node, file)
            return _find_class(source, name) if source else None
    return None


def _resolve(node: ast.ImportFrom, file: Path) -> Path | None:
    """Return the file of the module that an import names; None outside the library."""
    module = (node.module or "").split(".") if node.module else []
    if node.level:
        folder = file.parents[node.level - 1]
    elif module[:1] == ["peft"]:
        folder, module = require_library(), module[1:]
    else:
        return None
    path = folder.joinpath(*module)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
