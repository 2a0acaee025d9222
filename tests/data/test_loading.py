"""Supported formats and layouts of local data."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from tiny_tasks import ROWS, load_test, make, put, write

from unipeft_run.errors import UserError
from unipeft_run.miniatures import sources


@pytest.mark.parametrize("name", ROWS)
def test_a_folder_of_json_lines_gives_three_splits(name: str, tmp_path: Path) -> None:
    task = make(name, path=str(write(tmp_path, name)))
    splits = task.load()
    assert list(splits) == ["train", "validation", "test"]
    flat = Dataset.from_list(ROWS[name]).flatten()
    for column in task.columns.required:
        assert splits["test"][column][:] == flat[column][:]


@pytest.mark.parametrize("name", ROWS)
def test_parquet_gives_the_same_as_json_lines(name: str, tmp_path: Path) -> None:
    lines = make(name, path=write(tmp_path / "lines", name)).load()["train"]
    folder = tmp_path / "parquet"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS[name]), folder / "train.parquet")
    task = make(name, path=folder)
    parquet = task.load(["train"])["train"]
    for column in task.columns.required:
        assert parquet[column][:] == lines[column][:]
    assert task.ids(parquet) == task.ids(lines)


def test_limit_and_splits(tmp_path: Path) -> None:
    task = make("sst2", path=write(tmp_path, "sst2"), limit={"train": 1, "test": None})
    assert {name: len(split) for name, split in task.load().items()} == {
        "train": 1,
        "validation": 2,
        "test": 2,
    }
    assert list(task.load(["test"])) == ["test"]
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write("not read, because the limit is reached before")
    assert len(task.load()["train"]) == 1


def test_mnli_reads_the_mismatched_split_if_present(tmp_path: Path) -> None:
    folder = write(tmp_path, "mnli")
    (folder / "test.jsonl").rename(folder / "validation_mismatched.jsonl")
    write(tmp_path, "mnli")
    assert "validation_mismatched" in make("mnli", path=folder).load()


def test_the_path_takes_precedence_over_the_miniature_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    source = write(tmp_path / "source", "sst2", ROWS["sst2"][:1])
    monkeypatch.setattr(sources, "fetch", lambda name: asked.append(name) or source)
    own = write(tmp_path / "own", "sst2")
    assert len(make("sst2", path=own, mini="sst2").load()["train"]) == 2
    assert asked == []
    assert len(make("sst2", mini="sst2", hub={"path": "nyu-mll/glue"}).load()["train"]) == 1
    assert asked == ["sst2"]


# Formats and layouts


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_csv(rows: list[dict[str, Any]], comma: str = ",") -> bytes:
    lines = [list(rows[0]), *(map(str, row.values()) for row in rows)]
    return "".join(comma.join(line) + "\n" for line in lines).encode()


FILES: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "test.json": as_lines,
    "test.jsonl.gz": lambda rows: gzip.compress(as_lines(rows)),
    "test.csv": as_csv,
    "test.csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "test.tsv": lambda rows: as_csv(rows, "\t"),
    "test/part.jsonl": as_lines,
    "test-00000-of-00001.jsonl": as_lines,
}
VARIANTS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda content: content,
    "byte-order mark": lambda content: b"\xef\xbb\xbf" + content,
    "CRLF": lambda content: content.replace(b"\n", b"\r\n"),
    "blank lines": lambda content: content.replace(b"\n", b"\n\n"),
    "no last line feed": lambda content: content.removesuffix(b"\n"),
}


@pytest.mark.parametrize("name", FILES)
def test_each_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    put(tmp_path, name, FILES[name](ROWS["sst2"]))
    test = load_test(tmp_path)
    assert test["sentence"][:] == ["a fine film", "a dull film"]
    assert test["label"][:] == [1, 0]
    assert test["idx"][:] == ["7", "8"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["test.jsonl", "test.csv", "test.tsv"])
def test_marks_and_line_endings_change_nothing(name: str, variant: str, tmp_path: Path) -> None:
    plain = as_lines(ROWS["sst2"]) if name == "test.jsonl" else FILES[name](ROWS["sst2"])
    put(tmp_path, name, VARIANTS[variant](plain))
    test = load_test(tmp_path)
    assert test["sentence"][:] == ["a fine film", "a dull film"]
    assert test["label"][:] == [1, 0]


def test_csv_has_quotes_and_tsv_has_none(tmp_path: Path) -> None:
    text = 'a "fine", long film\nof two lines'
    put(tmp_path, "test.csv", b'label,sentence\r\n1,"a ""fine"", long film\nof two lines"\r\n')
    assert load_test(tmp_path)["sentence"][:] == [text]
    (tmp_path / "test.csv").unlink()
    put(tmp_path, "test.tsv", b'sentence\tlabel\n"fine\t1\na "dull" film\t0\n')
    assert load_test(tmp_path)["sentence"][:] == ['"fine', 'a "dull" film']


def test_a_field_longer_than_the_csv_modules_limit_is_read(tmp_path: Path) -> None:
    text = "word " * 60_000
    put(tmp_path, "test.csv", f"sentence,label\n{text},1\n".encode())
    assert load_test(tmp_path)["sentence"][:] == [text]


PAIR = ("the cat", "pisica")
LANGUAGES: dict[str, dict[str, Any]] = {
    "nested": {"translation": {"en": PAIR[0], "ro": PAIR[1]}},
    "dotted": {"translation.en": PAIR[0], "translation.ro": PAIR[1]},
    "top level": {"ro": PAIR[1], "en": PAIR[0]},
    "both": {"en": "no", "ro": "nu", "translation": {"en": PAIR[0], "ro": PAIR[1]}},
}


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        *((kind, layout) for kind in ("jsonl", "parquet") for layout in LANGUAGES),
        *(("csv", layout) for layout in ("dotted", "top level")),
    ],
)
def test_languages_may_be_nested_dotted_or_columns(kind: str, layout: str, tmp_path: Path) -> None:
    row = LANGUAGES[layout]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "test.parquet")
    else:
        put(tmp_path, f"test.{kind}", as_csv([row]) if kind == "csv" else as_lines([row]))
    test = load_test(tmp_path, "wmt16_en_ro")
    assert (test["translation.en"][:], test["translation.ro"][:]) == ([PAIR[0]], [PAIR[1]])


@pytest.mark.parametrize("layout", ["test-{:05}-of-00003.parquet", "test/{:05}.parquet"])
def test_parts_of_a_split_are_joined_in_order(layout: str, tmp_path: Path) -> None:
    rows = [{"sentence": f"film {number}", "label": number % 2} for number in range(9)]
    for part in (2, 0, 1):
        file = put(tmp_path, layout.format(part), b"")
        pq.write_table(pa.Table.from_pylist(rows[3 * part : 3 * part + 3]), file)
    test = load_test(tmp_path)
    assert test["sentence"][:] == [row["sentence"] for row in rows]
    assert test["label"][:] == [row["label"] for row in rows]
    assert len(load_test(tmp_path, limit={"test": 4})) == 4


def test_a_missing_part_is_a_user_error(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS["sst2"])
    pq.write_table(table, tmp_path / "test-00001-of-00002.parquet")
    with pytest.raises(UserError, match="holds 1 of the 2 parts of test: test-00001"):
        load_test(tmp_path)


def test_only_the_needed_parquet_columns_are_read(tmp_path: Path) -> None:
    odd = {
        "nothing": pa.nulls(2),
        "days": pa.array([1, 2], pa.duration("ns")),
        "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int8())),
        "nested": pa.array([[[[1]]], []]),
        "decimal": pa.array([None, 1], pa.decimal256(60, 3)),
        "bytes": pa.array([b"\xff", b""]),
    }
    table = pa.Table.from_pylist(ROWS["sst2"])
    for name, values in odd.items():
        table = table.append_column(name, values)
    unknown = {"info": {"features": {"nested": {"_type": "FromTheFuture"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(unknown)})
    pq.write_table(table, tmp_path / "test.parquet")
    test = load_test(tmp_path)
    assert set(test.column_names) == {"sentence", "label", "idx"}
    assert test["label"][:] == [1, 0]


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_every_kind_of_parquet_string_is_text(kind: pa.DataType, tmp_path: Path) -> None:
    texts = pa.array(["a fine film", "a dull film"]).cast(kind)
    pq.write_table(pa.table({"sentence": texts, "label": [1, 0]}), tmp_path / "test.parquet")
    assert load_test(tmp_path)["sentence"][:] == ["a fine film", "a dull film"]


def test_big_numbers_in_other_columns_are_skipped(tmp_path: Path) -> None:
    more = f'"n": {"9" * 5000}, "deep": {"[" * 100}{"]" * 100}, "lone": "\\ud800"'
    put(tmp_path, "test.jsonl", b'{"sentence": "x", "label": 1, %s}' % more.encode())
    assert load_test(tmp_path)["label"][:] == [1]
