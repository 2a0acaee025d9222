"""The sources of configuration: conf/, and extension folders (`--config-dir DIR`).

`DIR/form/NAME.yaml` is a choice of form; the same holds for every group. DIR is also a Python
package: its classes are imported by its name, and the command line that names DIR trusts them. The
folders are kept in $UNIPEFT_CONFIG_DIR, which workers and the other processes of a run inherit.

Imports nothing heavy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from unipeft_run.errors import UserError

VARIABLE = "UNIPEFT_CONFIG_DIR"
SEARCH_PATH = "hydra.searchpath="
CLOSED = ("insertion",)  # groups whose choices are functions of unipeft: folders cannot add to them
_named: list[str] = []  # the folders that the running command names itself


def conf_dir() -> Path:
    """Find the folder of the YAML files: inside the package in a wheel, next to it in a clone."""
    package = Path(__file__).parent
    return next(d for d in (package / "conf", package.parent / "conf") if d.is_dir())


def config_dirs() -> tuple[Path, ...]:
    """Return the extension folders, absolute, in order of precedence."""
    return tuple(Path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name)


def named_folders() -> tuple[str, ...]:
    """Return the folders of --config-dir, as typed, that $UNIPEFT_CONFIG_DIR did not hold before.

    A command line needs them to find the same choices.
    """
    return tuple(_named)


def options(group: str) -> list[str]:
    """List the choices of a group: its files in conf/ and, unless closed, in extension folders.

    [] if there is no such group.
    """
    names = set()
    added = () if group in CLOSED else config_dirs()
    for folder in (conf_dir() / group, *(folder / group for folder in added)):
        names |= {str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.yaml")}
    return sorted(names)


def file_stamp(*folders: Path, pattern: str = "*.yaml") -> tuple[tuple[str, int, int], ...]:
    """Return path, time and size of every file, to notice edits in a long process."""
    found = (file for folder in folders for file in sorted(folder.rglob(pattern)))
    stats = ((str(file), file.stat()) for file in found)
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def find_option(group: str, name: str) -> Path:
    """Return the file of one of the choices of a group; conf/ comes before the extensions."""
    files = [folder / group / f"{name}.yaml" for folder in (conf_dir(), *config_dirs())]
    return next((file for file in files if file.is_file()), files[0])


def groups() -> list[str]:
    """List the groups: the folders of conf/, in which a key selects a file."""
    return sorted(d.name for d in conf_dir().iterdir() if d.is_dir() and d.name != "preset")


@contextmanager
def extended_by(folders: Sequence[str]) -> Iterator[None]:
    """Add `folders` to the extension folders until the context ends.

    Raises UserError if one of them, or of $UNIPEFT_CONFIG_DIR, is missing.
    """
    before, named_before = os.environ.get(VARIABLE), list(_named)
    added = [os.path.abspath(os.path.expanduser(folder)) for folder in folders]
    pairs = zip(folders, added, strict=True)
    _named.extend(folder for folder, path in pairs if Path(path) not in config_dirs())
    _set_variable(os.pathsep.join(dict.fromkeys([*added, *map(str, config_dirs())])) or None)
    try:
        for folder in config_dirs():
            if not folder.is_dir():
                raise UserError(f"--config-dir={folder}: there is no such folder")
        make_importable()
        yield
    finally:
        _named[:] = named_before
        _set_variable(before)


def _set_variable(value: str | None) -> None:
    if value is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = value


class _Finder(MetaPathFinder):
    """Find the packages of the extension folders, and named packages in the current folder.

    Nothing else becomes importable: a library that probes for an optional module must not find one
    that was planted next to these packages. Installed modules come first.
    """

    def __init__(self) -> None:
        self.named: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a top-level package; the modules in it are found as usual."""
        if path is not None:
            return None
        parents = [str(folder.parent) for folder in config_dirs() if folder.name == name]
        return PathFinder.find_spec(name, parents + [os.getcwd()] * (name in self.named), target)


_finder = _Finder()


def make_importable(target: str = "") -> None:
    """Make the extension folders and the package of `target` in the current folder importable.

    `target` must be trusted: named on the command line or in an extension, or allowed.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)
    _finder.named.add(target.partition(".")[0])


def with_search_path(overrides: Sequence[str]) -> list[str]:
    """Add the extension folders to Hydra's search path, after those that `overrides` name."""
    folders = [f"'file://{_escape(str(folder))}'" for folder in config_dirs()]
    if not folders:
        return list(overrides)
    given = [word for word in overrides if word.startswith(SEARCH_PATH)]
    named = [entry for word in given for entry in _entries(word)]
    rest = [word for word in overrides if word not in given]
    return [*rest, f"{SEARCH_PATH}[{','.join(dict.fromkeys([*named, *folders]))}]"]


def _escape(path: str) -> str:
    return path.replace("\\", "\\\\").replace("'", "\\'")


def _entries(word: str) -> list[str]:
    return [entry for entry in word.removeprefix(SEARCH_PATH).strip("[]").split(",") if entry]
