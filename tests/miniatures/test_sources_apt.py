"""apt's private folder, shared by processes; apt-get is a program that fails as the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unipeft_run.errors import UserError
from unipeft_run.miniatures import sources

# Of two at once the second fails, as with apt's own lock; HAS: the releases that the mirror has.
APT_GET = """#!/bin/sh
case "$*" in *--print-uris*)
    echo "'http://mirror/debian/dists/bookworm/InRelease' mirror_InRelease 0 "; exit;;
esac
for word; do
    case $word in
        Dir::State::Lists=*) lists=${word#*=};;
        Dir::Etc::sourcelist=*) release=$(cut -d' ' -f3,4 "${word#*=}" | grep -o '[a-z]*$');;
    esac
done
echo "$release" >> "$LOG"
mkdir "$lists/held" || { echo "E: Could not get lock $lists/lock." >&2; exit 100; }
sleep 0.5
rmdir "$lists/held"
case "$HAS" in
    nothing) echo "W: Failed to fetch http://mirror/InRelease  Could not connect" >&2; exit 0;;
    *$release*) ;;
    *) echo "E: The repository '$release Release' does not have a Release file." >&2; exit 100;;
esac
printf 'Package: tool\\n' > "$lists/mirror_Packages"
printf 'Package: tool\\nDescription-en: %s\\n %s\\n' "a small $release tool" \
    "It does one thing and it does it well, day and night, for all who have it at hand." \
    > "$lists/mirror_Translation-en"
"""
FETCH = "from unipeft_run.miniatures import sources; sources.fetch('xsum')"


@pytest.fixture(autouse=True)
def updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which every `apt-get update` writes the release it was for."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("apt-get", APT_GET), ("dpkg-deb", "#!/bin/sh\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("HAS", "bookworm trixie")
    return tmp_path / "log"


def release(folder: Path) -> str:
    return str(json.loads((folder / "source.json").read_text())["package"]["release"])


def test_two_processes_fetch_once_and_the_same(updates: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    both = [subprocess.Popen([sys.executable, "-c", FETCH], env=env) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert updates.read_text().split() == ["trixie"]
    assert release(sources.fetch("xsum")) == "trixie"


def test_another_release_only_where_the_pinned_one_is_not_there(
    updates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAS", "bookworm")
    assert release(sources.fetch("xsum")) == "bookworm"
    assert updates.read_text().split() == ["trixie", "bookworm"]


def test_a_mirror_that_does_not_answer_is_one_sentence(
    updates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAS", "nothing")
    with pytest.raises(UserError, match=r"indexes of trixie\. W: Failed to fetch") as problem:
        sources.fetch("xsum")
    assert "task.path=DIR" in str(problem.value)
    assert updates.read_text().split() == ["trixie"]
    monkeypatch.setenv("HAS", "trixie")
    assert release(sources.fetch("xsum")) == "trixie"


def test_a_mirror_that_is_busy_is_no_reason_for_another_release(
    updates: Path, tmp_path: Path
) -> None:
    held = tmp_path / "cache" / "apt" / "trixie" / "lists" / "held"
    held.mkdir(parents=True)
    with pytest.raises(UserError, match="Could not get lock"):
        sources.fetch("xsum")
    assert updates.read_text().split() == ["trixie"]
