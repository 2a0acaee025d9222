"""Randomly damaged data files are read or refused in one sentence; damaged caches are rebuilt."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_text
from tiny_tasks import ROWS, make, write

from unipeft_run.errors import UserError

NAMES = ("test.jsonl", "test.csv", "test.tsv", "test.jsonl.gz", "test.parquet")
VALUES: list[Any] = [
    *(None, True, -1, 0, 1.0, 2, 10**30, float("nan"), float("inf"), "", "1", "positive"),
    *("\ud800", "\x00", "\x1b[31m", [], {}, [[[]]], {"a": {"b": 1}}, "x" * 10_000),
]
SEEDS = range(60)


def content(name: str, folder: Path, rng: random.Random) -> bytes:
    """Return the bytes of a complete file in the format of `name`, with some values replaced."""
    rows = [dict(row) for row in ROWS["sst2"] * 3]
    if name == "test.parquet":
        table = pa.table({key: [row[key] for row in rows] for key in ("sentence", "label")})
        names = {"info": {"features": {"label": {"names": ["positive", "negative"]}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
        pq.write_table(table, folder / name)
        return (folder / name).read_bytes()
    for _ in range(rng.randrange(3)):
        rng.choice(rows)[rng.choice(["sentence", "label", "idx", "other"])] = rng.choice(VALUES)
    if "jsonl" in name:
        lines = [json.dumps(row) for row in rows]
    else:
        lines = ["sentence,label", *(f"{row['sentence']},{row['label']}" for row in rows)]
    text = "\n".join(lines).replace(",", "\t" if name == "test.tsv" else ",")
    plain = text.encode("utf-8", "surrogatepass")
    return gzip.compress(plain) if name.endswith(".gz") else plain


def damage(whole: bytes, rng: random.Random) -> bytes:
    """Truncate `whole`, flip bits in it, insert bytes, or leave it unchanged."""
    if not whole:
        return whole
    kind, at = rng.randrange(4), rng.randrange(len(whole))
    if kind == 0:
        return whole[:at]
    if kind == 1:
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 20)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        return bytes(damaged)
    if kind == 2:
        junk = rng.choice([b"\0", b'"', b"\r", b"[" * 50_000, b"{", rng.randbytes(9)])
        return whole[:at] + junk + whole[at:]
    return whole


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_read_or_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    outcomes = set()
    for seed in SEEDS:
        rng = random.Random(f"{name} {seed}")
        (tmp_path / name).write_bytes(damage(content(name, tmp_path, rng), rng))
        try:
            test = make("sst2", path=tmp_path).load(["test"])["test"]
        except UserError as error:
            lines = str(error).splitlines()
            assert len(lines) == 1 and name in lines[0] and lines[0].isprintable(), seed
            outcomes.add("refused")
        else:
            assert set(test["label"][:]) <= {0, 1}, seed
            assert all(text.encode() is not None for text in test["sentence"][:]), seed
            outcomes.add("read")
    assert outcomes == {"read", "refused"}


def test_a_damaged_cache_gives_the_same_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    task, tokenizer = make("xsum", path=write(tmp_path, "xsum")), tiny_text.bart_tokenizer()
    splits = task.load(["test"])
    expected = task.encode(splits, tokenizer)["test"][:]
    for seed in SEEDS:
        rng = random.Random(seed)
        (file,) = (tmp_path / "cache" / "encoded").iterdir()
        file.write_bytes(damage(file.read_bytes(), rng))
        for entry in (tmp_path / "cache").glob("fingerprints/*"):
            entry.write_bytes(damage(entry.read_bytes(), rng))
        assert task.encode(splits, tokenizer)["test"][:] == expected, seed


def test_odd_parquet_types_are_read_or_refused_in_one_sentence(tmp_path: Path) -> None:
    kinds = [
        *(pa.int8(), pa.uint64(), pa.float16(), pa.bool_(), pa.binary(), pa.date32()),
        *(pa.list_(pa.string()), pa.struct({"a": pa.string()}), pa.decimal128(9, 2)),
        *(pa.map_(pa.string(), pa.string()), pa.timestamp("ns"), pa.null(), pa.large_string()),
        *(pa.struct({"a": pa.struct({})}), pa.struct({"label": pa.int8()})),
    ]
    for column in ("sentence", "label", "idx"):
        for kind in kinds:
            columns = {"sentence": pa.array(["x"]), "label": pa.array([1]), "idx": pa.array([1])}
            table = pa.table({**columns, column: pa.nulls(1, kind)})
            try:
                pq.write_table(table, tmp_path / "test.parquet")
            except pa.ArrowException:  # Parquet has no such type
                continue
            try:
                test = make("sst2", path=tmp_path).load(["test"])["test"]
            except UserError as error:
                assert column != "idx" and len(str(error).splitlines()) == 1, kind
            else:
                assert column == "idx" and test["label"][:] == [1], kind
