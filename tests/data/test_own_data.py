"""Own data: formats, folders, labels as words or numbers, and what is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from unipeft_run.data.tasks.labels import order_labels
from unipeft_run.data.tasks.text2text import Text2Text
from unipeft_run.data.tasks.text_classification import TextClassification
from unipeft_run.errors import UserError

ROWS = [{"review": f"film {n}", "stars": str(1 + n % 5), "id": f"r{n}"} for n in range(40)]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_numbers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "stars": int(row["stars"])} for row in rows]


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    file = folder / name
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(as_numbers(rows)), file)
        return file
    suffix = name.removesuffix(".gz").rpartition(".")[2]
    content = {
        "csv": lambda: as_csv(rows),
        "tsv": lambda: as_csv(rows, "\t"),
        "jsonl": lambda: as_lines(as_numbers(rows)),
    }[suffix]()
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return file


def classify(data: Path | str, **more: Any) -> TextClassification:
    """Make a task whose labels come from its data, as the configuration does."""
    settings: dict[str, Any] = {"text": "review", "label": "stars", **more}
    made: dict[str, Any] = {"name": "own", "data": str(data), "max_source_length": 16, **settings}
    return TextClassification(**made, labels=TextClassification(**made).summarise().labels)


def pairs(data: Path | str, **more: Any) -> Text2Text:
    lengths = {
        name: 16 for name in ("max_source_length", "max_target_length", "eval_target_length")
    }
    return Text2Text(
        name="own", data=str(data), **{**lengths, "source": "de", "target": "en", **more}
    )


# ---- formats


@pytest.mark.parametrize(
    "name", ["d.csv", "d.csv.gz", "d.tsv", "d.jsonl", "d.jsonl.gz", "d.parquet"]
)
def test_every_format_gives_the_same_splits(name: str, tmp_path: Path) -> None:
    task = classify(write(tmp_path, name, ROWS))
    assert task.label_names == ("1", "2", "3", "4", "5")
    splits = task.load()
    assert {split: len(data) for split, data in splits.items()} == {
        "train": 32, "validation": 4, "test": 4
    }  # fmt: skip
    by_id = {row["id"]: row for row in ROWS}
    for data in splits.values():
        for identifier, text, number in zip(
            task.ids(data), data["review"], task.references(data), strict=True
        ):
            row = by_id[identifier]
            assert (text, task.label_names[number]) == (row["review"], row["stars"])
    reference = classify(write(tmp_path, "other.csv", ROWS)).load(["test"])["test"]
    assert splits["test"]["review"][:] == reference["review"][:]


def test_a_split_is_recorded_with_the_rows_of_the_file(tmp_path: Path) -> None:
    rows = [{"de": f"Satz {n}", "en": f"sentence {n}"} for n in range(40)]
    task = pairs(write_pairs(tmp_path, rows))
    splits = task.load()
    record = task.describe_split(splits)
    assert record["examples"] == {"train": 32, "validation": 4, "test": 4}
    assert [rows[n - 1]["de"] for n in record["rows"]["test"]] == splits["test"]["de"][:]
    assert task.ids(splits["test"]) == [str(n) for n in record["rows"]["test"]]
    assert task.load(["test"])["test"]["de"][:] == splits["test"]["de"][:], "without the others"


def write_pairs(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "pairs.csv"
    file.write_bytes(as_csv(rows))
    return file


# ---- folders


def test_a_folder_with_every_split_is_not_divided(tmp_path: Path) -> None:
    for name, rows in (("train", ROWS[:20]), ("dev", ROWS[20:30]), ("test", ROWS[30:])):
        write(tmp_path, f"{name}.csv", rows)
    task = classify(tmp_path)
    splits = task.load()
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [20, 10, 10]
    assert task.describe_split(splits) == {}
    assert set(task.inert_keys()) == {"validation_size", "test_size", "split_seed"}
    by_path = TextClassification(
        name="own", path=tmp_path, max_source_length=16, text="review", label="stars",
        labels=task.labels,
    )  # fmt: skip
    assert by_path.load(["test"])["test"]["review"][:] == splits["test"]["review"][:]


def test_a_missing_validation_split_is_divided_off_the_training_data(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", ROWS[:30])
    write(tmp_path, "test.jsonl", ROWS[30:])
    task = classify(tmp_path, validation_size=6)
    splits = task.load()
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [24, 6, 10]
    assert not {*splits["train"]["review"]} & {*splits["validation"]["review"]}


@pytest.mark.parametrize("divided", [False, True])
def test_a_saved_data_set(divided: bool, tmp_path: Path) -> None:
    features = Features(review=Value("string"), stars=ClassLabel(names=["bad", "good"]))
    content = {"review": [f"film {n}" for n in range(40)], "stars": [n % 2 for n in range(40)]}
    data = Dataset.from_dict(content, features=features)
    saved = data.train_test_split(10, seed=0) if divided else data
    assert isinstance(saved, DatasetDict | Dataset)
    saved.save_to_disk(str(tmp_path / "saved"))
    task = classify(tmp_path / "saved")
    assert task.label_names == ("bad", "good")
    splits = task.load()
    assert len(splits["test"]) == (10 if divided else 4)
    for text, number in zip(splits["test"]["review"], splits["test"]["stars"], strict=True):
        assert int(text.split()[1]) % 2 == number
    assert set(task.fingerprints()) == {"train", "validation", "test"}


# ---- labels


def test_labels_are_ordered_by_value_or_name() -> None:
    assert order_labels(["10", "9", "9", "-1"]) == ("-1", "9", "10")
    assert order_labels(["10.0", "0.0", "9.5", "-1e1"]) == ("-1e1", "0.0", "9.5", "10.0")
    assert order_labels(["9", "nan", "10"]) == ("10", "9", "nan")
    assert order_labels(["spam", "ham", "Spam"]) == ("ham", "Spam")


def test_words_and_truth_values_are_labels(tmp_path: Path) -> None:
    rows = [{"review": f"film {n}", "stars": n % 2 == 0} for n in range(20)]
    file = tmp_path / "d.jsonl"
    file.write_bytes(as_lines(rows))
    task = classify(file)
    assert task.label_names == ("false", "true")
    data = task.load(["train"])["train"]
    assert [int(t.split()[1]) % 2 == 0 for t in data["review"]] == [
        bool(n) for n in task.references(data)
    ]


def test_names_can_be_given_to_numbered_classes(tmp_path: Path) -> None:
    rows = [{"review": f"film {n}", "stars": str(n % 2)} for n in range(20)]
    made: dict[str, Any] = {"name": "own", "max_source_length": 16, "text": "review"}
    file = write(tmp_path, "d.csv", rows)
    task = TextClassification(**made, data=str(file), label="stars", labels=("neg", "pos"))
    data = task.load(["train"])["train"]
    assert [int(t.split()[1]) % 2 for t in data["review"]] == task.references(data)


def test_a_label_out_of_the_classes_names_its_line(tmp_path: Path) -> None:
    task = classify(write(tmp_path, "d.csv", ROWS))
    task.data = str(write(tmp_path, "e.csv", [*ROWS, {"review": "x", "stars": "7", "id": "z"}]))
    with pytest.raises(UserError, match=r"line 42: .*'stars' holds 7, .*: the classes are 1, 2, 3"):
        task.load()


# ---- refusals


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"text": "reviw"}, r"task.text=reviw: .*d.csv has no column 'reviw' \(did you mean 'rev"),
        ({"label": "Star"}, r"task.label=Star: .* \(did you mean 'stars'\?\); its columns are rev"),
        ({"label": "id"}, "task.label=id is also the column of texts or ids"),
        ({"text": ["a", "b", "c"]}, "task.text names 3 columns"),
        ({"metric": "f1"}, "f1 is for two classes, and there are 5; take f1_macro"),
        ({"selection": "bleu"}, "task.selection=bleu is unknown"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        classify(write(tmp_path, "d.csv", ROWS), **settings)


def test_a_column_that_holds_no_classes(tmp_path: Path) -> None:
    rows = [{"review": f"film {n}", "stars": f"{n}.5"} for n in range(50)]
    with pytest.raises(UserError, match="holds 50 different values in 50 examples"):
        classify(write(tmp_path, "d.csv", rows))
    same = [{**row, "stars": "5"} for row in rows]
    with pytest.raises(UserError, match="holds the same value in 50 examples"):
        classify(write(tmp_path, "e.csv", same))


def test_examples_with_one_text_cannot_be_divided(tmp_path: Path) -> None:
    rows = [{"de": "gleich" if n else "anders", "en": f"sentence {n}"} for n in range(40)]
    message = "nearly all examples have the same text, so none is left for test"
    with pytest.raises(UserError, match=message):
        pairs(write_pairs(tmp_path, rows)).load()


def test_data_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, "pairs.csv", ROWS)
    (tmp_path / "notes.txt").write_text("x")
    for name, sentence in (
        ("pair.csv", r"no such file \(did you mean .*pairs.csv\?\)"),
        ("notes.txt", "unknown format; give CSV, TSV"),
        ("nowhere", "no such file or folder"),
        (".", "no train, validation or test file there; there is .*pairs.csv"),
    ):
        with pytest.raises(UserError, match=sentence):
            pairs(tmp_path / name).load()


def test_romanian_normalisation_needs_romanian() -> None:
    with pytest.raises(UserError, match="bleu_paper normalises Romanian text"):
        pairs("x.csv", metric=["bleu_paper"])
    assert pairs("x.csv", metric=["bleu_paper"], target_language="ro_RO").primary == "bleu_paper"


def test_the_first_metric_selects_and_ter_is_minimised() -> None:
    assert pairs("x.csv", metric=["ter", "chrf"]).selection_rule == ("ter", "min")
    assert pairs("x.csv", metric=["chrf", "ter"]).selection_rule == ("chrf", "max")
    assert pairs("x.csv", selection="loss").selection_rule == ("loss", "min")


def test_a_summary_is_cached_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, "d.csv", ROWS)
    assert classify(file).summarise().examples["train"] == 32
    reads: list[Path] = []
    from unipeft_run.data.tasks import split_tables

    original = split_tables.read_files
    monkeypatch.setattr(
        split_tables, "read_files", lambda *given: (reads.append(given[0]), original(*given))[1]
    )
    assert classify(file).summarise().examples["train"] == 32
    assert reads == []
    write(tmp_path, "d.csv", ROWS[:30])
    assert classify(file).summarise().examples["train"] == 24
    assert reads


def test_an_input_with_several_targets_stays_in_one_split(tmp_path: Path) -> None:
    rows = [{"source": f"text {n % 60}", "target": f"answer {n}"} for n in range(180)]
    file = write(tmp_path, "d.csv", rows)
    splits = pairs(file, source="source", target="target").load()
    sources = {name: set(data["source"]) for name, data in splits.items()}
    assert all(sources.values())
    assert not sources["train"] & (sources["validation"] | sources["test"])
    assert not sources["validation"] & sources["test"]
