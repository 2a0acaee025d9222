"""apt's private directory, shared by processes, with a script as fake apt-get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unipeft_run.errors import UserError
from unipeft_run.miniatures import sources
from unipeft_run.miniatures.sources import apt

# Fails if it runs twice at once, like apt with its lock. $HAS lists the mirror's releases.
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
    """Return the file to which every `apt-get update` appends its release."""
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


def test_two_processes_share_one_fetch(updates: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    both = [subprocess.Popen([sys.executable, "-c", FETCH], env=env) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert updates.read_text().split() == ["trixie"]
    assert release(sources.fetch("xsum")) == "trixie"


def test_another_release_is_used_only_if_the_mirror_lacks_the_pinned_one(
    updates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAS", "bookworm")
    assert release(sources.fetch("xsum")) == "bookworm"
    assert updates.read_text().split() == ["trixie", "bookworm"]


def test_an_unreachable_mirror_is_a_user_error(
    updates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAS", "nothing")
    with pytest.raises(UserError, match=r"indexes of trixie\. W: Failed to fetch") as problem:
        sources.fetch("xsum")
    assert "task.path=DIR" in str(problem.value)
    assert updates.read_text().split() == ["trixie"]
    monkeypatch.setenv("HAS", "trixie")
    assert release(sources.fetch("xsum")) == "trixie"


def test_a_busy_mirror_does_not_lead_to_another_release(updates: Path, tmp_path: Path) -> None:
    held = tmp_path / "cache" / "apt" / "trixie" / "lists" / "held"
    held.mkdir(parents=True)
    with pytest.raises(UserError, match="Could not get lock"):
        sources.fetch("xsum")
    assert updates.read_text().split() == ["trixie"]


def test_a_damaged_index_is_fetched_again(
    updates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sources.fetch("xsum")
    expected = (folder / "train.jsonl").read_bytes()
    index = tmp_path / "cache" / "apt" / "trixie" / "lists" / "mirror_Translation-en"
    index.write_bytes(index.read_bytes()[:40])  # a download that was cut off
    (folder / "test.jsonl").unlink()
    assert (sources.fetch("xsum") / "train.jsonl").read_bytes() == expected
    assert updates.read_text().split() == ["trixie", "trixie"]
    lines = capsys.readouterr().err.strip().splitlines()
    folder_line, index_line = (line for line in lines if not line.startswith("fetching "))
    assert folder_line == f"{folder}: test.jsonl is missing; fetching it again"
    assert "the checksum of mirror_Translation-en has changed" in index_line


def test_a_package_that_cannot_be_unpacked_is_a_user_error(
    updates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacker = tmp_path / "programs" / "dpkg-deb"
    script = '#!/bin/sh\necho "dpkg-deb: error: unexpected end of file" >&2; exit 2\n'
    monkeypatch.setattr(apt.Apt, "_run", fake_download)
    debian = apt.Apt(tmp_path / "apt", "trixie")
    (debian.root / "debs").mkdir(parents=True)
    unpacker.write_text(script)
    with pytest.raises(UserError, match=r"could not unpack tool_1\.deb.*unexpected end of file"):
        debian.unpack("tool")
    unpacker.write_text('#!/bin/sh\ntouch "$3/file"\n')
    assert (debian.unpack("tool") / "file").exists()
    assert not list((debian.root / "debs").iterdir())


def fake_download(_: apt.Apt, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    (cwd / f"{command[1]}_1.deb").touch()
    return subprocess.CompletedProcess(command, 0, "", "")
