"""Rows whose class is -1, which is how `datasets` stores that there is no label."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from unipeft_run.data.tasks import hub
from unipeft_run.data.tasks.text_classification import TextClassification
from unipeft_run.errors import UserError

NAMES = ["bad", "good"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))


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


def test_minus_one_is_a_class_where_no_names_are_recorded(tmp_path: Path) -> None:
    rows = "".join(f"film {n},{n % 3 - 1}\n" for n in range(30))
    (tmp_path / "d.csv").write_text(f"text,label\n{rows}")
    assert classify(tmp_path / "d.csv").summarise().labels == ("-1", "0", "1")
