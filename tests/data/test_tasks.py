"""Tasks: where examples come from, what is said when they do not, and what they are worth."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from tiny_tasks import ROWS, make, write

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
    parquet = task.load(only=["train"])["train"]
    for column in task.columns.required:
        assert parquet[column][:] == lines[column][:]
    assert task.ids(parquet) == task.ids(lines)


def test_ids_are_the_examples_own_or_their_numbers(tmp_path: Path) -> None:
    xsum = make("xsum", path=write(tmp_path / "x", "xsum"))
    assert xsum.ids(xsum.load()["test"]) == ["x1", "x2"]
    wmt = make("wmt16_en_ro", path=write(tmp_path / "w", "wmt16_en_ro"))
    assert wmt.ids(wmt.load()["test"]) == ["0", "1"]


def test_limit_and_only(tmp_path: Path) -> None:
    task = make("sst2", path=write(tmp_path, "sst2"), limit={"train": 1, "test": None})
    assert {name: len(split) for name, split in task.load().items()} == {
        "train": 1,
        "validation": 2,
        "test": 2,
    }
    assert list(task.load(only=["test"])) == ["test"]
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write("not read, for the limit comes first")
    assert len(task.load()["train"]) == 1


def test_mnli_reads_the_mismatched_split_where_it_is(tmp_path: Path) -> None:
    folder = write(tmp_path, "mnli")
    (folder / "test.jsonl").rename(folder / "validation_mismatched.jsonl")
    write(tmp_path, "mnli")
    assert "validation_mismatched" in make("mnli", path=folder).load()


def test_the_path_wins_over_the_miniature_source(
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


BROKEN = {
    "missing column": (
        b'{"text": "x", "label": 1}',
        r"line 1 has no column 'sentence'.*text, label",
    ),
    "not UTF-8": (b'{"sentence": "ok", "label": 1}\n{"sentence": "\xff"}', "line 2 is not UTF-8"),
    "half a line": (
        b'{"sentence": "ok", "label": 1}\n{"sente',
        "line 2 is not a whole JSON object",
    ),
    "no object": (b"[1, 2]", "line 1 is not a JSON object"),
    "no text": (
        b'{"sentence": null, "label": 1}',
        "line 1: column 'sentence' holds null, not text",
    ),
    "no number": (
        b'{"sentence": "x", "label": "1"}',
        """line 1: column 'label' holds "1", not a""",
    ),
    "label range": (b'{"sentence": "x", "label": 2}', "label 2 in row 1 .*0 negative, 1 positive"),
    "negative label": (b'{"sentence": "x", "label": -1}', "label -1 in row 1 is out of range"),
    "empty": (b"\n", "test.jsonl has no examples"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_sentence_with_its_place(case: str, tmp_path: Path) -> None:
    content, sentence = BROKEN[case]
    folder = write(tmp_path, "sst2")
    (folder / "test.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=sentence) as error:
        make("sst2", path=folder).load()
    assert str(folder / "test.jsonl") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_broken_parquet_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "test.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        make("sst2", path=tmp_path).load(only=["test"])
    table = pa.table({"sentence": ["x", None], "label": [1, 0]})
    pq.write_table(table, tmp_path / "test.parquet")
    with pytest.raises(UserError, match="column 'sentence' is empty in row 2"):
        make("sst2", path=tmp_path).load(only=["test"])
    pq.write_table(pa.table({"sentence": [1], "label": [1]}), tmp_path / "test.parquet")
    with pytest.raises(UserError, match="'sentence' holds int64, not text"):
        make("sst2", path=tmp_path).load(only=["test"])


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"no folder {tmp_path / 'gone'}")):
        make("xsum", path=tmp_path / "gone").load()
    folder = write(tmp_path, "xsum")
    (folder / "validation.jsonl").unlink()
    with pytest.raises(UserError, match=r"no validation.jsonl.*there is test.jsonl, train.jsonl"):
        make("xsum", path=folder).load()
    with pytest.raises(UserError, match=r"task.path=DIR, or scale=mini"):
        make("xsum").load()


def test_a_missing_language_is_a_missing_column(tmp_path: Path) -> None:
    folder = write(tmp_path, "wmt16_en_ro", [{"translation": {"en": "a", "de": "b"}}])
    with pytest.raises(UserError, match=r"'translation.ro'.*translation.en, translation.de"):
        make("wmt16_en_ro", path=folder).load()


# Baselines, references, scores


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
def test_references_as_predictions_score_best(name: str, tmp_path: Path) -> None:
    task = make(name, path=write(tmp_path, name))
    references = task.references(task.load()["test"])
    scores = task.score(references, references)
    assert scores.metrics["rouge1" if name == "xsum" else task.primary] == pytest.approx(100.0)
    assert len(scores.per_example) == 2
    assert set(scores.metrics) < set(scores.signatures)


def test_selection_by_loss_is_downwards() -> None:
    assert make("wmt16_en_ro").selection_rule == ("loss", "min")
    assert make("xsum").selection_rule == ("rouge2", "max")
    assert make("xsum", selection="loss").selection_rule == ("loss", "min")
    assert (make("mnli").num_labels, make("xsum").num_labels) == (3, None)
