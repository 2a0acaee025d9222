"""The cache of encoded splits: keys, checksums, damaged files, unwritable folders."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_text
from datasets import Dataset

from unipeft_run.data import encoding
from unipeft_run.errors import UserError


class Counted:
    """A tokenize function that counts the texts it encodes."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.texts = tokenizer, 0

    def __call__(self, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        self.texts += len(batch["text"])
        ids = self.tokenizer(batch["text"], truncation=True, max_length=9)["input_ids"]
        return {"input_ids": ids, "labels": batch["label"]}


def texts(count: int = 5) -> Dataset:
    rows = [tiny_text.TEXT[i % 3] + f" {i}" for i in range(count)]
    return Dataset.from_dict({"text": rows, "label": list(range(count))})


def encode(dataset: Dataset, tokenizer: Any, **key: Any) -> tuple[Dataset, int]:
    tokenize = Counted(tokenizer)
    encoded = encoding.encode(dataset, tokenize, tokenizer, key=key, description="test")
    return encoded, tokenize.texts


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path))
    return tmp_path / "encoded"


def test_a_second_run_reads_the_cached_file(cache: Path) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    first, seen = encode(texts(), tokenizer)
    assert seen == 5 + 1  # one more to find the type of labels
    second, seen = encode(texts(), tiny_text.bart_tokenizer())
    assert seen == 0
    assert second[:] == first[:]
    assert len(list(cache.iterdir())) == 1
    assert first.features["input_ids"].feature.dtype == "int32"


def test_everything_that_changes_ids_changes_the_file_name(cache: Path) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    encode(texts(), tokenizer, length=9)
    encode(texts(), tokenizer, length=8)
    encode(texts(4), tokenizer, length=9)
    encode(texts(), tiny_text.bart_tokenizer(tiny_text.CODES), length=9)
    assert len(list(cache.iterdir())) == 4


def test_an_interrupted_encoding_leaves_no_file(cache: Path) -> None:
    tokenizer = tiny_text.bart_tokenizer()

    def broken(batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        if len(batch["text"]) > 1:
            raise KeyboardInterrupt
        return Counted(tokenizer)(batch)

    with pytest.raises(KeyboardInterrupt):
        encoding.encode(texts(), broken, tokenizer, key={}, description="test")
    assert not list(cache.rglob("*.arrow"))
    assert encode(texts(), tokenizer)[0]["labels"][:] == [0, 1, 2, 3, 4]


def test_the_hash_depends_on_content_not_on_origin() -> None:
    rows = texts(6)
    assert encoding.content_hash(rows.select(range(5))) == encoding.content_hash(texts(5))
    assert encoding.content_hash(rows.select([1, 0, 2, 3, 4])) != encoding.content_hash(texts(5))
    assert encoding.content_hash(texts(5)) != encoding.content_hash(texts(6))


def test_calls_do_not_change_a_tokenizer_hash() -> None:
    tokenizer = tiny_text.bart_tokenizer()
    before = encoding.tokenizer_hash(tokenizer)
    tokenizer(tiny_text.TEXT, truncation=True, max_length=4, padding=True)
    assert encoding.tokenizer_hash(tokenizer) == before
    tokenizer.add_tokens(["weather"])
    assert encoding.tokenizer_hash(tokenizer) != before


# Damaged files


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "flipped bit": flip,
    "other": lambda content: b"not an Arrow file",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_encoded_again_with_one_line(
    damage: str, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    expected = encode(texts(), tokenizer)[0][:]
    (file,) = cache.iterdir()
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    capfd.readouterr()
    again, seen = encode(texts(), tokenizer)
    assert (again[:], seen) == (expected, 6)
    lines = [line for line in capfd.readouterr().err.splitlines() if "damaged" in line]
    assert lines == [f"test: {file} in the cache is damaged; encoding again"]
    assert encode(texts(), tokenizer)[1] == 0


def test_a_flipped_bit_is_found_even_if_mtime_is_unchanged(cache: Path) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    expected = encode(texts(), tokenizer)[0][:]
    (file,) = cache.iterdir()
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(flip(file.read_bytes()))
    os.utime(file, ns=times)
    assert encode(texts(), tokenizer)[0][:] == expected


def test_a_folder_in_place_of_the_file_is_a_user_error(cache: Path) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    encode(texts(), tokenizer)
    (file,) = cache.iterdir()
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match="UNIPEFT_CACHE"):
        encode(texts(), tokenizer)


# Folders that cannot be written


@pytest.fixture
def _small_files_only() -> Iterator[None]:
    """Let writes fail after 4 KiB, as on a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.usefixtures("_small_files_only")
def test_a_full_disk_gives_one_message_with_its_cause(cache: Path) -> None:
    with pytest.raises(UserError, match=r"UNIPEFT_CACHE") as caught:
        encode(texts(2000), tiny_text.bart_tokenizer())
    assert f"cache folder {cache.parent}: File too large" in str(caught.value)
    assert any(isinstance(error, OSError) for error in causes(caught.value))
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_created_gives_one_message_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        UserError, match=r"file/cache: Not a directory(?s:.*)UNIPEFT_CACHE"
    ) as caught:
        encode(texts(), tiny_text.bart_tokenizer())
    assert isinstance(caught.value.__cause__, NotADirectoryError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_still_serves_what_it_holds(cache: Path) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    expected = encode(texts(), tokenizer)[0][:]
    cache.chmod(0o555)
    try:
        assert encode(texts(), tokenizer)[0][:] == expected
        with pytest.raises(UserError, match="Permission denied"):
            encode(texts(4), tokenizer)
    finally:
        cache.chmod(0o755)
