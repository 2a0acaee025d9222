"""Rows whose class is -1, which is how `datasets` stores that there is no label."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from unipeft_run.data.tasks import found_data, hub, own_source
from unipeft_run.data.tasks.text_classification import TextClassification
from unipeft_run.errors import UserError

NAMES = ["bad", "good"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    found_data._find_on_hub.cache_clear()


def split(labels: list[int], names: list[str] | None = None) -> Dataset:
    features = Features(text=Value("string"), label=ClassLabel(names=names or NAMES))
    content = {"text": [f"film {n}, {len(labels)}" for n in range(len(labels))], "label": labels}
    return Dataset.from_dict(content, features=features)


def unlabelled_test(names: list[str] | None = None) -> DatasetDict:
    return DatasetDict(train=split([0, 1] * 20, names), test=split([-1] * 7, names))


def classify(data: Path | str, **more: Any) -> TextClassification:
    return TextClassification(name="own", data=str(data), max_source_length=16, **more)


def save(data: DatasetDict, folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Store `data` as one of the kinds that record class names; return its place."""
    if kind == "hub":
        monkeypatch.setattr(hub.datasets, "load_dataset", lambda *_, **__: data)
        return "owner/name"
    if kind == "saved":
        data.save_to_disk(str(folder / "data"))
    else:
        (folder / "data").mkdir()
        for name in data:
            data[name].to_parquet(str(folder / "data" / f"{name}.parquet"))
    return str(folder / "data")


@pytest.mark.parametrize("kind", ["hub", "saved", "parquet"])
def test_an_unlabelled_test_split_is_replaced(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = save(unlabelled_test(), tmp_path, kind, monkeypatch)
    names = classify(place).summarise().labels
    assert names == ("bad", "good")
    task = classify(place, labels=names)
    splits = task.load()
    assert {name: len(data) for name, data in splits.items()} == {
        "train": 32, "validation": 4, "test": 4
    }  # fmt: skip
    texts = [text for data in splits.values() for text in data["text"]]
    assert sorted(texts) == sorted(split([0, 1] * 20)["text"])
    assert task.describe_split(splits)["examples"]["test"] == 4
    lines = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert lines == [
        f"{place}: its test split has no labels; another is split off the training examples"
    ]


@pytest.mark.parametrize("names", [NAMES, ["0", "1"]])
@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_a_row_without_a_label_is_named(
    kind: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DatasetDict(train=split([0, 1] * 20, names), test=split([0, 1, -1, 1], names))
    task = classify(save(data, tmp_path, kind, monkeypatch))
    with pytest.raises(UserError, match=r"test.*, row 3: column 'label' holds -1, which means "):
        task.summarise()


def write_csv(folder: Path, **labels: list[Any]) -> Path:
    """Write a file for each split with these labels, whose classes have no recorded names."""
    for name, column in labels.items():
        rows = "".join(f"film {n} of {name},{label}\n" for n, label in enumerate(column))
        (folder / f"{name}.csv").write_text(f"text,label\n{rows}")
    return folder


def test_minus_one_is_a_class_where_no_names_are_recorded(tmp_path: Path) -> None:
    data = write_csv(tmp_path, train=[-1, 0, 1] * 10, test=[-1] * 7)
    assert classify(data).class_names() == ("-1", "0", "1")
    assert len(classify(data, labels=("-1", "0", "1")).load()["test"]) == 7


def test_a_whole_split_of_minus_one_has_no_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_csv(tmp_path, train=[0, 1] * 20, dev=[1, 0], test=[-1] * 7)
    assert classify(data).class_names() == ("0", "1")
    splits = classify(data, labels=("no", "yes")).load()
    assert {name: len(found) for name, found in splits.items()} == {
        "train": 36, "validation": 2, "test": 4
    }  # fmt: skip
    assert "its test split has no labels" in caplog.text
    write_csv(tmp_path, train=[0, 1] * 20, test=[-1, 1])
    assert classify(data).class_names() == ("-1", "0", "1"), "a part of the split has it"


def test_splits_with_different_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_csv(tmp_path, train=["bad", "good"] * 20, dev=["Good"], test=["neg", "pos"])
    message = "the test split has no label in common with the train split"
    with pytest.raises(UserError, match=message):
        classify(data).class_names()
    write_csv(tmp_path, test=["good", "fair"])
    assert caplog.text == ""
    classify(data, labels=classify(data).class_names()).load()
    classify(data, labels=("bad", "good", "fair"), limit={"train": 9}).load()
    lacking = f"{data}: its test split has labels that no training example has"
    assert caplog.messages == [f"{lacking}: fair", f"{lacking} (with limit.train=9): fair"]


def test_hub_data_is_loaded_and_summarised_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = save(unlabelled_test(), tmp_path, "hub", monkeypatch)
    first = classify(place).summarise()
    monkeypatch.setattr(hub.datasets, "load_dataset", None)
    monkeypatch.setattr(own_source.OwnSource, "_tables", None)
    assert classify(place).summarise() == first
