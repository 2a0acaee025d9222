"""The cache: complete folders only, checked against their checksums at every use."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unipeft_run.data.fingerprint import CLOCK_TICK_NS
from unipeft_run.errors import UserError
from unipeft_run.miniatures import sources
from unipeft_run.miniatures.sources import checksums, minilm, snippets
from unipeft_run.miniatures.sources.cached_folder import STALE, build_once
from unipeft_run.miniatures.sources.checksums import find_damage

LIGHT = """
import sys
from unipeft_run.miniatures import sources
heavy = ("apt", "roff", "minilm", "pypi", "package_index")
assert not [name for name in heavy if f"unipeft_run.miniatures.sources.{name}" in sys.modules]
assert not {"torch", "requests", "hydra"} & sys.modules.keys()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the sources that are built; each writes two files instead of fetching."""
    calls: list[str] = []

    def build(folder: Path) -> None:
        calls.append(folder.parent.name)
        (folder / "train.jsonl").write_text('{"sentence": "a good film", "label": 1}\n')
        (folder / "model.safetensors").write_bytes(bytes(64))

    monkeypatch.setattr(snippets, "build", build)
    monkeypatch.setattr(minilm, "build", build)
    return calls


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def test_importing_the_package_loads_no_source() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", LIGHT], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_partly_built_folder_never_appears(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "train.jsonl").write_text("{}\n")
        raise RuntimeError("cut off")

    with pytest.raises(RuntimeError):
        build_once(tmp_path / "data", fail)
    assert list(tmp_path.iterdir()) == []
    build_once(tmp_path / "data", lambda folder: (folder / "a").write_text("whole") and None)
    assert (build_once(tmp_path / "data", fail) / "a").read_text() == "whole"


def test_an_intact_folder_is_neither_fetched_nor_read_again(
    built: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources.fetch("sst2")
    time.sleep(2 * CLOCK_TICK_NS / 1e9)  # newer hashes are not remembered
    sources.fetch("sst2")
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("reads the file"))
    sources.fetch("sst2")
    assert len(built) == 1
    assert capsys.readouterr().err == "fetching sst2 data (once)\n", "not a terminal: one line"


@pytest.mark.parametrize(
    ("name", "file"), [("sst2", "train.jsonl"), ("roberta_mini", "model.safetensors")]
)
def test_a_flipped_bit_is_fetched_again_with_one_line(
    name: str, file: str, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    fetch = sources.fetch_backbone if name == "roberta_mini" else sources.fetch
    folder = fetch(name)
    expected = (folder / file).read_bytes()
    (fetching,) = capsys.readouterr().err.splitlines()
    flip_bit(folder / file)
    assert (fetch(name) / file).read_bytes() == expected
    assert len(built) == 2
    line = f"{folder}: the checksum of {file} has changed; fetching it again"
    assert capsys.readouterr().err.splitlines() == [fetching, line]
    fetch(name)
    assert len(built) == 2
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    "damage", ["missing", "truncated", "link", "no checksums", "bad checksums"]
)
def test_every_kind_of_damage_is_fetched_again(
    damage: str, built: list[str], tmp_path: Path
) -> None:
    folder = sources.fetch("sst2")
    rows, recorded = folder / "train.jsonl", folder / checksums.NAME
    expected = rows.read_bytes()
    match damage:
        case "missing":
            rows.unlink()
        case "truncated":
            rows.write_bytes(expected[:10])
        case "link":
            rows.rename(tmp_path / "elsewhere")
            rows.symlink_to(tmp_path / "elsewhere")
        case "no checksums":
            recorded.unlink()
        case _:
            recorded.write_text('{"train.jsonl": 7')
    assert find_damage(folder) is not None
    assert (sources.fetch("sst2") / "train.jsonl").read_bytes() == expected
    assert len(built) == 2 and not rows.is_symlink()


def test_new_file_times_alone_are_not_damage(built: list[str]) -> None:
    rows = sources.fetch("sst2") / "train.jsonl"
    os.utime(rows, ns=(1, 1))
    sources.fetch("sst2")
    assert len(built) == 1


def test_a_changed_label_with_the_old_times_is_found(built: list[str]) -> None:
    rows = sources.fetch("sst2") / "train.jsonl"
    time.sleep(2 * CLOCK_TICK_NS / 1e9)
    sources.fetch("sst2")
    times = rows.stat()
    flip_bit(rows)
    os.utime(rows, ns=(times.st_atime_ns, times.st_mtime_ns))
    sources.fetch("sst2")
    assert len(built) == 2


def test_damage_without_a_network_names_the_alternative(
    built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise UserError("the package index cannot be reached")

    folder = sources.fetch("sst2")
    flip_bit(folder / "train.jsonl")
    monkeypatch.setattr(snippets, "build", fail)
    with pytest.raises(UserError, match=r"cannot fetch sst2 data: .*\n.*task\.path=DIR"):
        sources.fetch("sst2")


def test_a_cache_that_cannot_be_written_is_a_user_error(cache: Path, built: list[str]) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"UNIPEFT_CACHE") as problem:
        sources.fetch("sst2")
    assert str(cache) in str(problem.value)


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    old, new = tmp_path / ".data-old", tmp_path / ".data-new"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, old.stat().st_mtime - 2 * STALE))
    build_once(tmp_path / "data", lambda folder: (folder / "a").write_text("whole") and None)
    assert new.exists() and not old.exists()
