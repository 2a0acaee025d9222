"""The task interface: checks at construction, ids, baselines, references, scores, selection."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_tasks import ROWS, make, write

from unipeft_run.errors import UserError


def test_baselines_need_no_model(tmp_path: Path) -> None:
    predictions = {}
    for name in ROWS:
        task = make(name, path=write(tmp_path / name, name))
        predictions[name] = task.baseline(task.load())
    assert predictions == {
        "sst2": [1, 0],
        "mnli": [0, 2],
        "xsum": ["One fell.", "Rain came to the town."],
        "wmt16_en_ro": ["the cat", "the open file is ready"],
    }
    task = make("xsum", path=tmp_path / "xsum", lead_words=2)
    assert task.baseline(task.load()) == ["One fell.", "Rain came"]
    assert task.baseline_name == "first 2 words"


@pytest.mark.parametrize("name", ROWS)
def test_references_score_best_and_give_the_declared_metrics(name: str, tmp_path: Path) -> None:
    task = make(name, path=write(tmp_path, name))
    references = task.references(task.load()["test"])
    scores = task.score(references, references)
    assert scores.metrics["rouge1" if name == "xsum" else task.primary] == pytest.approx(100.0)
    assert len(scores.per_example) == 2
    assert set(scores.metrics) < set(scores.signatures)
    assert set(scores.metrics) == set(task.metrics)


def test_selection_minimises_the_loss_and_maximises_metrics() -> None:
    assert make("wmt16_en_ro").selection_rule == ("loss", "min")
    assert make("xsum").selection_rule == ("rouge2", "max")
    assert make("xsum", selection="loss").selection_rule == ("loss", "min")
    assert (make("mnli").num_labels, make("xsum").num_labels) == (3, None)


# Construction


@pytest.mark.parametrize(
    ("name", "selection", "sentence"),
    [
        ("xsum", "f1", r"task.selection=f1 is unknown.*loss, rouge1, rouge2, rougeL, rougeLsum"),
        ("xsum", "rouge3", r"did you mean rouge"),
        ("wmt16_en_ro", "rouge2", r"choose from loss, bleu, bleu_paper, chrf"),
        ("sst2", "acuracy", r"did you mean accuracy\?.*choose from loss, accuracy"),
    ],
)
def test_an_unknown_selection_is_refused_before_data_is_loaded(
    name: str, selection: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        make(name, selection=selection)


def test_the_papers_bleu_selects_for_romanian_only() -> None:
    assert make("wmt16_en_ro", selection="bleu_paper").selection_rule == ("bleu_paper", "max")
    with pytest.raises(UserError, match=r"bleu_paper is unknown.*choose from loss, bleu, chrf"):
        make("wmt16_en_ro", selection="bleu_paper", target_language="de")


def test_labels_need_a_separate_column() -> None:
    for column in ("sentence", "idx"):
        with pytest.raises(UserError, match=f"task.label_column={column} is also"):
            make("sst2", label_column=column)
    with pytest.raises(UserError, match=r"task.label_column=hypothesis is also"):
        make("mnli", label_column="hypothesis")


# One column in two places


def test_a_copy_task_keeps_its_rows_and_ids(tmp_path: Path) -> None:
    task = make("xsum", target_column="document", path=write(tmp_path, "xsum"))
    test = task.load()["test"]
    assert len(test) == 2
    assert task.ids(test) == ["x1", "x2"]
    assert task.references(test) == [row["document"] for row in ROWS["xsum"]]


def test_a_translation_into_the_same_language_keeps_its_rows(tmp_path: Path) -> None:
    task = make("wmt16_en_ro", target_language="en", path=write(tmp_path, "wmt16_en_ro"))
    test = task.load()["test"]
    assert (
        task.references(test)
        == task.baseline({"test": test})
        == [
            "the cat",
            "the open file is ready",
        ]
    )


def test_a_pair_of_one_text_with_itself_keeps_its_rows(tmp_path: Path) -> None:
    task = make("mnli", hypothesis_column="premise", path=write(tmp_path, "mnli"))
    splits = task.load()
    assert splits["test"]["premise"][:] == ["a man sleeps", "a man sleeps"]
    assert len(task.baseline(splits)) == 2


def test_ids_may_be_the_texts_themselves(tmp_path: Path) -> None:
    task = make("sst2", id_column="sentence", path=write(tmp_path, "sst2"))
    assert task.ids(task.load()["test"]) == ["a fine film", "a dull film"]


# Ids and splits


def test_ids_are_the_examples_own_or_row_numbers(tmp_path: Path) -> None:
    xsum = make("xsum", path=write(tmp_path / "x", "xsum"))
    assert xsum.ids(xsum.load()["test"]) == ["x1", "x2"]
    wmt = make("wmt16_en_ro", path=write(tmp_path / "w", "wmt16_en_ro"))
    assert wmt.ids(wmt.load()["test"]) == ["0", "1"]


def test_parquet_ids_that_are_not_utf8_give_row_numbers(tmp_path: Path) -> None:
    table = pa.table({"sentence": ["x", "y"], "label": [0, 1]})
    ids = pa.array([b"a", b"\xff"]).view(pa.string())
    pq.write_table(table.append_column("idx", ids), tmp_path / "test.parquet")
    task = make("sst2", path=tmp_path)
    assert task.ids(task.load(["test"])["test"]) == ["0", "1"]


@pytest.mark.parametrize("ids", [["a", "a"], ["a", None], [[1], [2]], [True, False]])
def test_ids_that_identify_nothing_give_row_numbers(ids: list[object], tmp_path: Path) -> None:
    rows = [{**row, "id": name} for row, name in zip(ROWS["xsum"], ids, strict=True)]
    task = make("xsum", path=write(tmp_path, "xsum", rows))
    assert task.ids(task.load()["test"]) == ["0", "1"]


def test_the_splits_that_an_evaluation_needs() -> None:
    assert make("xsum").splits_for("test") == ("test",)
    assert make("mnli").splits_for("test") == ("test", "validation_mismatched")
    assert make("mnli").splits_for("validation") == ("validation",)


def test_an_evaluation_reads_only_its_splits(tmp_path: Path) -> None:
    folder = write(tmp_path, "mnli")
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("damaged")
    task = make("mnli", path=folder)
    assert list(task.load(task.splits_for("test"))) == ["test"]
    (folder / "test.jsonl").rename(folder / "validation_mismatched.jsonl")
    write(tmp_path, "mnli")
    assert list(task.load(task.splits_for("test"))) == ["test", "validation_mismatched"]
    with pytest.raises(UserError, match=r"split=tset is unknown \(did you mean test\?\)"):
        task.load(["tset"])


def test_fingerprints_change_with_the_rows_of_a_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    folder = write(tmp_path / "data", "sst2")
    task = make("sst2", path=folder)
    before = task.fingerprints()
    assert list(before) == ["train", "validation", "test"]
    rows = [{**row, "label": 1 - row["label"]} for row in ROWS["sst2"]]
    (folder / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    after = task.fingerprints()
    assert {split for split in before if before[split] != after[split]} == {"train"}
    assert task.fingerprints(["test"]) == {"test": after["test"]}
    assert make("sst2", hub={"path": "nyu-mll/glue"}).fingerprints() == {}
