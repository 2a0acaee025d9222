"""Labels: class numbers, class names, and data whose classes are in another order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from tiny_tasks import make, write

from unipeft_run.data.tasks import hub
from unipeft_run.data.tasks.labels import LabelError, parse_label
from unipeft_run.errors import UserError

TEXTS = ["a dull film", "a fine film"]  # negative, positive


def named(labels: list[int], names: list[str]) -> Dataset:
    features = Features(sentence=Value("string"), label=ClassLabel(names=names))
    return Dataset.from_dict({"sentence": TEXTS, "label": labels}, features=features)


def write_parquet(folder: Path, split: str, labels: list[int], names: list[str] | None) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / f"{split}.parquet"
    if names is None:
        pq.write_table(pa.table({"sentence": TEXTS, "label": labels}), file)
    else:
        named(labels, names).to_parquet(str(file))


def write_lines(folder: Path, split: str, labels: list[Any]) -> None:
    rows = [{"sentence": t, "label": label} for t, label in zip(TEXTS, labels, strict=True)]
    (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def labels_of(folder: Path, split: str = "test") -> list[int]:
    task = make("sst2", path=folder)
    return task.references(task.load([split])[split])


ORDERS = {
    "own": ([0, 1], ["negative", "positive"]),
    "other": ([1, 0], ["positive", "negative"]),
    "other case": ([1, 0], ["Positive", "NEGATIVE"]),
    "a class more": ([1, 2], ["unknown", "negative", "positive"]),
    "numbers": ([0, 1], ["0", "1"]),
}


@pytest.mark.parametrize("order", ORDERS)
def test_parquet_labels_follow_their_names(order: str, tmp_path: Path) -> None:
    write_parquet(tmp_path, "test", *ORDERS[order])
    assert labels_of(tmp_path) == [0, 1]


@pytest.mark.parametrize("order", ORDERS)
def test_hub_labels_follow_their_names(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = DatasetDict(validation=named(*ORDERS[order]))
    monkeypatch.setattr(hub.datasets, "load_dataset", lambda *_, **__: data)
    task = make("sst2", hub={"path": "nyu-mll/glue", "name": "sst2"})
    assert task.references(task.load(["test"])["test"]) == [0, 1]


def test_each_split_and_part_follows_its_own_names(tmp_path: Path) -> None:
    write_parquet(tmp_path, "train", *ORDERS["other"])
    write_parquet(tmp_path, "validation", *ORDERS["own"])
    write_parquet(tmp_path, "test-00000-of-00002", *ORDERS["own"])
    write_parquet(tmp_path, "test-00001-of-00002", *ORDERS["other"])
    task = make("sst2", path=tmp_path)
    assert {name: split["label"][:] for name, split in task.load().items()} == {
        "train": [0, 1],
        "validation": [0, 1],
        "test": [0, 1, 0, 1],
    }


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_another_class_order_with_unnamed_numbers_is_refused(kind: str, tmp_path: Path) -> None:
    write_parquet(tmp_path, "train", *ORDERS["other"])
    write_parquet(tmp_path, "validation", *ORDERS["own"])
    if kind == "parquet":
        write_parquet(tmp_path, "test", [0, 1], None)
    else:
        write_lines(tmp_path, "test", [0, "positive"])
    with pytest.raises(UserError, match=rf"train.parquet numbers.*test.{kind} does not say"):
        make("sst2", path=tmp_path).load()


def test_another_class_order_with_class_names_is_mapped(tmp_path: Path) -> None:
    write_parquet(tmp_path, "train", *ORDERS["other"])
    write_parquet(tmp_path, "validation", *ORDERS["own"])
    write_lines(tmp_path, "test", ["negative", "positive"])
    splits = make("sst2", path=tmp_path).load()
    assert [split["label"][:] for split in splits.values()] == [[0, 1]] * 3


def test_unknown_class_names_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path, "test", [0, 1], ["neg", "pos"])
    with pytest.raises(UserError, match=r"row 1: column 'label' holds .neg., not a label: the cla"):
        labels_of(tmp_path)


@pytest.mark.parametrize("labels", [["negative", "positive"], ["Negative", "POSITIVE "], [0, 1]])
def test_names_and_numbers_are_read_from_text_files(labels: list[Any], tmp_path: Path) -> None:
    write_lines(tmp_path, "test", labels)
    assert labels_of(tmp_path) == [0, 1]
    (tmp_path / "test.jsonl").unlink()
    rows = [f"{text},{label}" for text, label in zip(TEXTS, labels, strict=True)]
    (tmp_path / "test.csv").write_text("\n".join(["sentence,label", *rows]))
    assert labels_of(tmp_path) == [0, 1]


def test_mnli_names_are_read_in_any_order(tmp_path: Path) -> None:
    names = ["contradiction", "entailment", "neutral"]
    rows = [{"premise": "a", "hypothesis": "b", "label": name} for name in names]
    task = make("mnli", path=write(tmp_path, "mnli", rows))
    assert task.references(task.load(["test"])["test"]) == [2, 0, 1]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([0, 1], pa.uint8()),
        pa.array([0, 1], pa.uint64()),
        pa.array([0, 1], pa.int8()),
        pa.array(["negative", "positive"]),
        pa.array(["negative", "positive"]).dictionary_encode(),
        pa.array([0, 1]).dictionary_encode(),
    ],
    ids=lambda values: str(values.type),
)
def test_parquet_labels_may_have_any_integer_or_string_type(
    values: pa.Array, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"sentence": TEXTS, "label": values}), tmp_path / "test.parquet")
    assert labels_of(tmp_path) == [0, 1]


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": null}', b"[" * 99999, b"\xff"])
def test_damaged_class_names_count_as_none(metadata: bytes, tmp_path: Path) -> None:
    table = pa.table({"sentence": TEXTS, "label": [0, 1]})
    table = table.replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "test.parquet")
    assert labels_of(tmp_path) == [0, 1]


@pytest.mark.parametrize("names", [("-1", "0", "1"), ("0.5", "1.5"), ("1", "2", "n/a")])
def test_numbers_are_no_positions_among_classes_named_by_numbers(names: tuple[str, ...]) -> None:
    assert parse_label(names[0], names) == 0
    with pytest.raises(LabelError, match="out of range"):
        parse_label(7, names)
    with pytest.raises(LabelError, match="out of range"):
        parse_label(2 if "2" not in names else 0, names)
