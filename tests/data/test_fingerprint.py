"""Content hashes of files and folders, and when they are computed again."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest

from unipeft_run.data import fingerprint as module
from unipeft_run.data.fingerprint import combine, fingerprint, fingerprint_files
from unipeft_run.errors import UserError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content was hashed."""
    names: list[str] = []
    digest = hashlib.file_digest

    def counted(file: object, algorithm: str) -> object:
        names.append(Path(file.name).name)  # type: ignore[attr-defined]
        return digest(file, algorithm)  # type: ignore[arg-type]

    monkeypatch.setattr(module.hashlib, "file_digest", counted)
    return names


def settle() -> None:
    """Wait until the hashes of the files written so far can be cached."""
    time.sleep(1.5 * module.CLOCK_TICK_NS / 1e9)


def test_a_file_has_the_sha256_of_its_content(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"text")
    assert fingerprint(file) == hashlib.sha256(b"text").hexdigest()
    assert fingerprint_files([file]) == fingerprint(str(file))


def test_files_are_named_by_their_folders_only_if_they_must_be(tmp_path: Path) -> None:
    files = [tmp_path / "a" / "x", tmp_path / "b" / "y", tmp_path / "b" / "x"]
    for number, file in enumerate(files):
        file.parent.mkdir(exist_ok=True)
        file.write_text(str(number))
    x, y, other = map(fingerprint, files)
    assert fingerprint_files(files[:2]) == combine({"x": x, "y": y})
    assert fingerprint_files(files) == combine({"a/x": x, "b/y": y, "b/x": other})


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, hashed: list[str]) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"text")
    settle()
    assert fingerprint(file) == fingerprint(file)
    assert hashed == ["a"]


def test_an_edit_of_equal_length_is_seen_at_once(tmp_path: Path) -> None:
    file = tmp_path / "a"
    seen = set()
    for number in range(50):  # faster than the clock of the file system ticks
        file.write_bytes(b"%02d" % number)
        seen.add(fingerprint(file))
    assert len(seen) == 50


def test_an_edit_with_its_time_set_back_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"text")
    settle()
    before, status = fingerprint(file), file.stat()
    file.write_bytes(b"test")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint(file) != before


def test_a_folder_depends_on_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "inner" / "weights").write_bytes(b"1")
    first = fingerprint(folder)
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert fingerprint(moved) == first
    (moved / "inner" / "weights").rename(moved / "weights")
    assert fingerprint(moved) != first
    (folder / "inner" / "weights").write_bytes(b"2")
    assert fingerprint(folder) != first


def test_a_folder_of_links_and_a_loop_has_the_hash_of_its_targets(tmp_path: Path) -> None:
    folder, links = tmp_path / "model", tmp_path / "links"
    folder.mkdir()
    links.mkdir()
    (folder / "weights").write_bytes(b"1")
    (links / "weights").symlink_to(folder / "weights")
    assert fingerprint(links) == fingerprint(folder)
    (links / "loop").symlink_to(links)
    assert fingerprint(links) == fingerprint(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b'{"sha256": 1}', b"[" * 9999])
def test_a_damaged_entry_is_ignored(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"text")
    settle()
    expected = fingerprint(file)
    (entry,) = (tmp_path / "cache" / "fingerprints").iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(content)
    assert fingerprint(file) == expected
    entry.write_bytes(whole.replace(expected.encode(), expected[::-1].encode()))
    assert fingerprint(file) == expected


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"text")
    settle()
    monkeypatch.setenv("UNIPEFT_CACHE", str(file / "cache"))
    assert fingerprint(file) == hashlib.sha256(b"text").hexdigest()


def test_a_missing_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone cannot be read: No such file"):
        fingerprint(tmp_path / "gone")
