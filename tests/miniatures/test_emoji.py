"""Emoji from npm packages: the client's archives are checked, and splits share no picture."""

from __future__ import annotations

import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from unipeft_run.errors import UserError
from unipeft_run.miniatures.sources import emoji, emoji_classes, emoji_sequences
from unipeft_run.miniatures.sources.checksums import hash_file
from unipeft_run.miniatures.sources.emoji import Artist, Emoji
from unipeft_run.miniatures.sources.npm import NpmRelease

CODES = [f"1f{i:03x}" for i in range(400)]
NPM = """#!/bin/sh
[ "$1" = pack ] && [ "$3" = --ignore-scripts ] || exit 9
for word in "$@"; do case $word in --pack-destination=*) to=${{word#*=}};; esac; done
cp {archives}/$(echo "$2" | tr @ -).tgz "$to/" || {{ echo "npm error 404 Not Found" >&2; exit 1; }}
"""


def pack(file: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def make_artist(archives: Path, name: str) -> Artist:
    """Pack one picture of each emoji, and a file that must not be read."""
    folder = f"package/img/{name}/64"
    members = {f"{folder}/{code}-fe0f.png": f"{name} {code}".encode() for code in CODES}
    members[f"package/img/{name}/sheets/64.png"] = b"all"
    items = [
        {"unified": f"{code.upper()}-FE0F", "name": f"THING {i}", "category": "Objects"}
        | {"subcategory": "big" if i < 100 else "rare" if i < 105 else f"class {i % 9}"}
        for i, code in enumerate(CODES)
    ]
    members["package/emoji.json"] = json.dumps(items).encode()
    file = pack(archives / f"{name}-1.0.0.tgz", members)
    release = NpmRelease(name, "1.0.0", file.name, hash_file(file))
    return Artist(name, release, folder, "a licence")


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that a fake npm serves; the artists are packed in it."""
    folder, programs = tmp_path / "archives", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    (programs / "npm").write_text(NPM.format(archives=folder))
    (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(emoji, "NOTO", make_artist(folder, "noto"))
    monkeypatch.setattr(emoji, "TWEMOJI", make_artist(folder, "twemoji"))
    return folder


def read(folder: Path, split: str, column: str) -> list[object]:
    return pq.read_table(folder / f"{split}.parquet")[column].to_pylist()


def test_an_archive_comes_from_npm_once(archives: Path) -> None:
    release = emoji.NOTO.release
    path = release.download()
    assert hash_file(path) == release.sha256
    (archives / path.name).unlink()
    assert release.download() == path


def test_a_changed_archive_is_refused(archives: Path) -> None:
    other = replace(emoji.NOTO.release, sha256="0" * 64)
    with pytest.raises(UserError, match=r"npm's noto-1.0.0.tgz has SHA-256 \w+, not 0000"):
        other.download()
    assert not list(archives.parent.glob("cache/downloads/*/*"))


def test_a_missing_package_is_named(archives: Path) -> None:
    with pytest.raises(UserError, match=r"npm pack other@1.0.0 failed. 404 Not Found"):
        replace(emoji.NOTO.release, name="other", sha256="1" * 64).download()


def test_without_npm_it_says_so(archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(archives))
    with pytest.raises(UserError, match="noto is an npm package: npm is needed"):
        emoji.NOTO.release.download()


def test_classes_are_trained_on_one_artist_and_tested_on_another(
    archives: Path, tmp_path: Path
) -> None:
    emoji_classes.build(tmp_path)
    names = json.loads((tmp_path / "labels.json").read_text())
    assert names == ["big", *(f"class {i}" for i in range(9))]
    assert json.loads((tmp_path / "source.json").read_text())["dropped"] == ["rare"]
    train, validation, test = (
        [bytes(picture) for picture in read(tmp_path, split, "image")]
        for split in ("train", "validation", "test")
    )
    assert all(picture.startswith(b"noto ") for picture in train)
    assert all(picture.startswith(b"twemoji ") for picture in validation + test)
    assert not set(validation) & set(test)
    assert len(train) == len(validation) + len(test)
    assert read(tmp_path, "train", "label").count(0) == emoji_classes.LARGEST
    assert 0.1 < len(validation) / len(train) < 0.3


def test_sequences_of_the_splits_share_no_picture(archives: Path, tmp_path: Path) -> None:
    emoji_sequences.build(tmp_path)
    seen = {}
    for split, size in emoji_sequences.SIZES.items():
        sequences = read(tmp_path, split, "images")
        texts = read(tmp_path, split, "text")
        assert len(sequences) == len(texts) == size
        assert len(set(texts)) == size
        seen[split] = {picture for frames in sequences for picture in frames}  # type: ignore[attr-defined]
    assert all(picture.startswith(b"noto") for picture in seen["train"])
    assert all(picture.startswith(b"twemoji") for picture in seen["validation"] | seen["test"])
    assert not seen["validation"] & seen["test"]


def test_a_sentence_names_the_pictures_in_order() -> None:
    items = [Emoji("1", name, "", "") for name in ("red apple", "mouse face", "bus", "key")]
    assert emoji_sequences.describe(items) == (
        "first red apple, then mouse face, after that bus, at last key"
    )


def test_codes_have_no_selectors() -> None:
    assert emoji.without_selectors("0033-FE0F-20E3") == "0033-20e3"
    assert emoji.without_selectors("1F468-200D-1F373") == "1f468-1f373"
