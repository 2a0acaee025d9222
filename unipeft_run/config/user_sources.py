"""Find the source files of a user's class: its module, and the user's modules that it imports."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from unipeft_run.data.fingerprint import note

INSTALLED = ("site-packages", "dist-packages")


def find_sources(module: str) -> list[Path]:
    """Return the file of `module` and of the modules that it imports from its own folder tree.

    The `__init__.py` of their packages belong to them, if there is code in them. [] if there is no
    such module. Installed packages are followed within themselves only. Nothing below `module` is
    imported: imports are read from the source.
    """
    first = _find_source(module)
    if first is None:
        return []
    root = _root(module, first)
    prefix = module.partition(".")[0] if set(INSTALLED) & set(root.parts) else ""
    found: dict[Path, str] = {}
    waiting = [(module, first)]
    while waiting:
        name, file = waiting.pop()
        if file in found:
            continue
        found[file] = name
        waiting += _packages(root, name)
        for imported in _imported_names(name, file):
            if (imported + ".").startswith(f"{prefix}." if prefix else ""):
                waiting += [(imported, path) for path in _files(root, imported)]
    return sorted(found)


def _find_source(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None


def _root(module: str, file: Path) -> Path:
    """Return the folder on the import path that holds the top-level package of `module`."""
    depth = module.count(".") + (file.name == "__init__.py")
    return file.parents[min(depth, len(file.parents) - 1)]


def _files(root: Path, module: str) -> Iterator[Path]:
    """Yield the file of `module` below `root`, if it is there."""
    base = root.joinpath(*module.split("."))
    for file in (base / "__init__.py", base.with_name(f"{base.name}.py")):
        if file.is_file():
            yield file
            return


def _packages(root: Path, module: str) -> Iterator[tuple[str, Path]]:
    """Yield name and `__init__.py` of the packages around `module` that run code on import."""
    while module := module.rpartition(".")[0]:
        file = root.joinpath(*module.split("."), "__init__.py")
        if file.is_file():
            note(file)
            if _has_code(file):
                yield module, file


def _has_code(file: Path) -> bool:
    """Return whether `file` holds more than comments and a docstring."""
    tree = _parse(file)
    return tree is None or any(not _is_string(node) for node in tree.body)


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _parse(file: Path) -> ast.Module | None:
    """Parse a source file; None for a broken one, which importing the class will report."""
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _imported_names(module: str, file: Path) -> Iterator[str]:
    """Yield the dotted names that `file` imports; some name an attribute instead of a module."""
    tree = _parse(file)
    if tree is None:
        return
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])]).strip(".")
            yield from (f"{base}.{alias.name}".strip(".") for alias in node.names)
            if base:
                yield base
