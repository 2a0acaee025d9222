"""Downloading pinned files: the hash comes first, and no code of a package ever runs."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from package_server import PackageServer, make_sdist, serving, sha256

from unipeft_run.errors import UserError
from unipeft_run.miniatures import sources
from unipeft_run.miniatures.sources import pip_options
from unipeft_run.miniatures.sources.archives import read_member, read_members
from unipeft_run.miniatures.sources.package_index import PackageIndexes
from unipeft_run.miniatures.sources.pypi import Release

FILE = "thing-1.0.tar.gz"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache, and no package index except those that a test names."""
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for option in ("EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX"):
        monkeypatch.delenv(f"PIP_{option}", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Return the path of a file that exists only if the package's setup.py was run."""
    return tmp_path / "setup.py was run"


def release(content: bytes) -> Release:
    return Release("thing", "1.0", FILE, sha256(content))


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("login", ["", "me:secret"])
def test_a_source_distribution_is_downloaded_and_never_run(
    as_json: bool, login: str, trace: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdist = make_sdist(b"rows", trace)
    with serving(PackageServer({FILE: sdist}, as_json, login)) as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.address)
        archive = release(sdist).download()
        assert archive.read_bytes() == sdist and archive.is_relative_to(cache)
        assert server.requests == ["/simple/thing/", f"/files/{FILE}"]
        assert release(sdist).download() == archive
        assert len(server.requests) == 2
    assert read_member(archive, "data/rows.txt") == b"rows"
    assert not trace.exists()
    assert list(archive.parent.iterdir()) == [archive]


def test_different_content_under_the_pinned_name_is_refused(
    trace: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, served = make_sdist(b"rows", trace), make_sdist(b"others", trace)
    with serving(PackageServer({FILE: served})) as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.address)
        with pytest.raises(UserError, match=f"{FILE} .*with SHA-256 {sha256(served)}"):
            release(expected).download()
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert not trace.exists()


def test_the_index_that_has_the_pinned_content_is_found(
    tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, other = make_sdist(b"rows", trace), make_sdist(b"others", trace)
    local = tmp_path / "simple" / "thing"
    local.mkdir(parents=True)
    (tmp_path / "thing.tar.gz").write_bytes(expected)
    (tmp_path / FILE).write_bytes(expected)
    (local / "index.html").write_text(f'<a href="../../{FILE}">{FILE}</a>')
    with serving(PackageServer({FILE: other})) as wrong, serving(PackageServer({})) as empty:
        monkeypatch.setenv("PIP_INDEX_URL", wrong.address)
        extra = f"{empty.address} {(tmp_path / 'simple').as_uri()}"
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", extra)
        assert release(expected).download().read_bytes() == expected


def test_a_folder_of_archives_is_searched_first(
    tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdist = make_sdist(b"rows", trace)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / FILE).write_bytes(sdist)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert release(sdist).download().read_bytes() == sdist


@pytest.mark.parametrize(
    ("status", "reason"), [(404, "none of pip's package indexes lists it"), (503, "answers 503")]
)
def test_an_index_without_the_file_is_a_user_error(
    status: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(PackageServer({}, status=status)) as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.address)
        with pytest.raises(UserError, match=reason):
            release(b"").download()


def test_an_unreachable_index_is_a_user_error_without_the_password(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:1/simple")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1/.* cannot be reached") as problem:
        sources.fetch("sst2")
    assert "cannot fetch sst2 data" in str(problem.value)
    assert "task.path=DIR" in str(problem.value) and "secret" not in str(problem.value)
    assert not list((cache / "data").glob("*"))


def test_a_damaged_download_is_fetched_again(
    trace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sdist = make_sdist(b"rows", trace)
    with serving(PackageServer({FILE: sdist})) as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.address)
        archive = release(sdist).download()
        archive.write_bytes(sdist[:100])
        assert release(sdist).download().read_bytes() == sdist
    assert capsys.readouterr().err.splitlines() == [
        f"{archive}: the checksum has changed; fetching it again"
    ]


def test_pips_options_have_pips_precedence() -> None:
    printed = (
        ":env:.find-links='/wheels'\ndownload.index-url='https://download/simple'\n"
        "global.index-url='https://global/simple'\nglobal.extra-index-url='\\nhttps://a\\nhttps://b'\n"
        "global.find-links='/other'\ninstall.index-url='https://install/simple'\n"
    )
    assert pip_options.parse_listing(printed) == {
        "index-url": "https://download/simple",
        "extra-index-url": "\nhttps://a\nhttps://b",
        "find-links": "/wheels",
    }


def test_a_wrong_pip_configuration_is_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.conf").write_text("[global\nindex-url")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    with pytest.raises(UserError, match=r"pip's configuration cannot be read .*pip\.conf.*line: 1"):
        PackageIndexes.configured()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "soon")
    with pytest.raises(UserError, match=r"default-timeout: invalid .* 'soon'"):
        PackageIndexes.configured()
    monkeypatch.setattr(pip_options.PathFinder, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="timeout='soon': must be a number of seconds"):
        PackageIndexes.configured()


def test_pips_variables_are_read_without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip_options.PathFinder, "find_spec", lambda name: None)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror/simple")
    assert PackageIndexes.configured().indexes == ("https://mirror/simple",)


def test_setuptools_can_be_imported_after_reading_pips_options() -> None:
    module = pip_options.__name__
    code = f"import {module} as options; options.read_options(); import setuptools"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_regular_files_of_an_archive_are_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        entry = tarfile.TarInfo("a/data/x.txt")
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"hi"))
        link = tarfile.TarInfo("a/link/x.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert read_member(tmp_path / "a.tar.gz", "x.txt") == b"hi"
    with pytest.raises(UserError, match="has 0 files"):
        read_member(tmp_path / "a.tar.gz", "y.txt")
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as packed:
        packed.writestr("../../x.txt", "outside")
    assert list(read_members(tmp_path / "a.whl", (".txt",))) == [("../../x.txt", b"outside")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "a.whl"]
