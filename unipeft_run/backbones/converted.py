"""Find the hub's own safetensors conversion of a repository that has only pickles.

It is a pull request, whose author is checked. Once downloaded, its commit is recorded beside the
other references in the hub's cache, so that the conversion is found without a network.
"""

import re
from contextlib import suppress
from pathlib import Path

from unipeft_run.backbones.files import find_file
from unipeft_run.hub import is_hub_reachable

CONVERTER = "SFconvertbot"  # the hub's account that opens pull requests with conversions
REFERENCE = "refs/unipeft/converted"  # in the cache of a repository: the commit that was checked
COMMIT = re.compile("[0-9a-f]+")


def find_converted(source: str, name: str) -> Path | None:
    """Return the path of `name` in the conversion of `source`, a hub id or its cached snapshot."""
    if Path(source).is_dir():
        return _find_recorded(Path(source), name)
    if is_hub_reachable():
        return _download(source, name)
    cached = find_file(source, "config.json")
    return _find_recorded(cached.parent, name) if cached else None


def _download(source: str, name: str) -> Path | None:
    from huggingface_hub import get_repo_discussions

    for discussion in get_repo_discussions(source, author=CONVERTER):
        by_hub = discussion.author == CONVERTER and discussion.is_pull_request
        if by_hub and "safetensors" in discussion.title:
            file = find_file(source, name, discussion.git_reference)
            if file:
                _record(file.parent)
            return file
    return None


def _record(snapshot: Path) -> None:
    """Record the commit of a snapshot, if it is in the hub's cache and that can be written."""
    if snapshot.parent.name == "snapshots":
        reference = snapshot.parent.parent / REFERENCE
        with suppress(OSError):
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(snapshot.name)


def _find_recorded(snapshot: Path, name: str) -> Path | None:
    """Return the path of `name` in the recorded snapshot beside this one; None if there is none."""
    reference = snapshot.parent.parent / REFERENCE
    if snapshot.parent.name != "snapshots" or not reference.is_file():
        return None
    commit = reference.read_text(errors="replace")
    file = snapshot.parent / commit / name
    return file if COMMIT.fullmatch(commit) and file.is_file() else None
