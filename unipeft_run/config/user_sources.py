"""Find the source files of a user's class: its module, and the user's modules that it imports."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

INSTALLED = ("site-packages", "dist-packages")


def find_sources(module: str) -> list[Path]:
    """Return the file of `module` and of the modules that it imports from its own folder tree.

    [] if there is no such module. Installed packages are followed within themselves only. Nothing
    below `module` is imported: imports are read from the source.
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


def _imported_names(module: str, file: Path) -> Iterator[str]:
    """Yield the dotted names that `file` imports; some name an attribute instead of a module."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # importing the class will report the error
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
