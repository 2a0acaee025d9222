"""Find run folders: all below a folder (bounded, each once, no link loops), or one by its id."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from unipeft_run.errors import UserError
from unipeft_run.runs.printable import printable

MARKS = frozenset(("config.yaml", "status.json", "metrics.json"))  # any one of them marks a run
DEPTH, DEPTH_BELOW_LINK = 16, 4  # a link leads to a run, or to output/task/method/run_id
MOST_FOLDERS = 200_000
OUTPUTS = Path("outputs")  # where runs are looked up by default

Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True)
class Found:
    """A run folder, or a folder that cannot be listed, with the `problem`."""

    path: Path
    problem: str = ""


def search(tops: Iterable[Path]) -> Iterator[Found]:
    """Yield the run folders in and below `tops`, sorted by name; hidden folders are skipped.

    Nothing below a run folder is searched: trackers keep files there that look like runs.
    """
    seen: set[Identity] = set()
    for top in tops:
        above = {_identity(parent) for parent in top.absolute().parents}
        yield from _Search(seen, above).walk(str(top), DEPTH)


@dataclass
class _Search:
    seen: set[Identity]
    above: set[Identity | None]  # of the folder searched: a link to one of them is a loop
    left: int = field(default_factory=lambda: MOST_FOLDERS)

    def walk(self, path: str, depth: int) -> Iterator[Found]:
        if self.left == 0:
            return
        try:
            status = os.stat(path)
            identity = status.st_dev, status.st_ino
            if identity in self.seen:
                return
            self.seen.add(identity)
            names, folders = _list(path)
        except OSError as error:
            yield Found(Path(path), f"cannot be listed: {error.strerror}")
            return
        if not MARKS.isdisjoint(names):
            yield Found(Path(path))
            return
        self.left -= 1
        if self.left == 0:
            yield Found(Path(path), f"more than {MOST_FOLDERS} folders; name a folder further down")
        for folder, is_link in folders:
            below = min(depth - 1, DEPTH_BELOW_LINK) if is_link else depth - 1
            if below >= 0 and not (is_link and _identity(Path(folder)) in self.above):
                yield from self.walk(folder, below)


def _list(path: str) -> tuple[set[str], list[tuple[str, bool]]]:
    """Return the names in the folder `path`, and its sorted (sub-folder, is a link) pairs."""
    names, folders = set(), []
    with os.scandir(path) as entries:
        for entry in entries:
            names.add(entry.name)
            if not entry.name.startswith(".") and _is_folder(entry):
                folders.append((entry.path, entry.is_symlink()))
    return names, sorted(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def find_run(text: str, output: Path = OUTPUTS) -> Path:
    """Return the folder of a run named by its path, or by the start of its id below `output`.

    `sst2/mam/ab12` names the run as well as `ab12` does; a whole id names only runs with that id.
    Raises UserError unless one run fits.
    """
    path = Path(os.path.expanduser(text))
    if text and path.is_dir():
        return path
    runs = [found.path for found in search([output]) if not found.problem] if text else []
    fitting = [run for run in runs if _is_named(run, output, text)]
    exact = [run for run in fitting if run.name == text.rpartition("/")[2]]
    fitting = exact or fitting
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(printable(run) for run in fitting[:4])
        more = f" and {len(fitting) - 4} more" if len(fitting) > 4 else ""
        raise UserError(f"{printable(text)} matches several runs: {names}{more}")
    near = get_close_matches(text, [run.name for run in runs], n=1, cutoff=0.7)
    hint = f"; did you mean {printable(near[0])}?" if near else "; unipeft runs lists them"
    where = printable(output.absolute())
    raise UserError(f"{printable(text)} is not a run folder, nor the id of a run in {where}{hint}")


def _is_named(run: Path, output: Path, text: str) -> bool:
    parents, _, start = text.rpartition("/")
    if not start or not run.name.startswith(start):
        return False
    above = f"/{run.parent.relative_to(output).as_posix()}"
    return not parents or above.endswith(f"/{parents}")
