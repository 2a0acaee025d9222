"""Tasks: where examples come from, what is said when they do not, and how they are encoded."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_text
from datasets import Dataset, DatasetDict
from transformers import MBartTokenizer

from unipeft_run import sources
from unipeft_run.errors import UserError
from unipeft_run.tasks import hub
from unipeft_run.tasks.base import Task
from unipeft_run.tasks.mnli import MNLI
from unipeft_run.tasks.sst2 import SST2
from unipeft_run.tasks.wmt16_en_ro import WMT16EnRo
from unipeft_run.tasks.xsum import XSum

ROWS: dict[str, list[dict[str, Any]]] = {
    "sst2": [
        {"sentence": "a fine film", "label": 1, "idx": 7},
        {"sentence": "a dull film", "label": 0, "idx": 8},
    ],
    "mnli": [
        {"premise": "a man sleeps", "hypothesis": "a man rests", "label": 0, "idx": 3},
        {"premise": "a man sleeps", "hypothesis": "nobody sleeps", "label": 2, "idx": 4},
    ],
    "xsum": [
        {"document": "One fell. Two stood up again.", "summary": "One fell.", "id": "x1"},
        {"document": "Rain came to the town. Roads shut.", "summary": "Rain.", "id": "x2"},
    ],
    "wmt16_en_ro": [
        {"translation": {"en": "the cat", "ro": "pisica"}},
        {"translation": {"en": "the open file is ready", "ro": "fi\u0219ierul deschis este gata"}},
    ],
}


def make(name: str, **settings: Any) -> Task:
    text = {"max_target_length": 12, "eval_target_length": 8}
    kinds: dict[str, Any] = {"sst2": SST2, "mnli": MNLI, "xsum": XSum, "wmt16_en_ro": WMT16EnRo}
    more = text if name in ("xsum", "wmt16_en_ro") else {}
    return kinds[name](**{"name": name, "max_source_length": 16, **more, **settings})


def write(folder: Path, name: str, rows: list[dict[str, Any]] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for split in ("train", "validation", "test"):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows or ROWS[name]]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


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


# The hub


@pytest.fixture
def _asked_anew(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "SECONDS", 0.3)
    hub.reachable.cache_clear()
    yield
    hub.reachable.cache_clear()


@pytest.mark.usefixtures("_asked_anew")
def test_a_silent_hub_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        began = time.monotonic()
        with pytest.raises(UserError, match=r"(?s)EdinburghNLP/xsum.*scale=mini, or task.path=DIR"):
            make("xsum", hub={"path": "EdinburghNLP/xsum", "name": None}).load()
    assert time.monotonic() - began < 3


@pytest.mark.usefixtures("_asked_anew")
def test_a_hub_that_answers_is_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(hub, "SECONDS", 3.0)
        assert hub.reachable()


def test_the_hub_splits_of_glue(monkeypatch: pytest.MonkeyPatch) -> None:
    def dataset(word: str) -> Dataset:
        return Dataset.from_dict({"premise": [word], "hypothesis": ["h"], "label": [1], "idx": [5]})

    names = ["train", "validation_matched", "validation_mismatched", "test_matched"]
    calls: list[Any] = []

    def load(path: str, name: str | None, revision: str | None) -> DatasetDict:
        calls.append((path, name, revision))
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported")
        return DatasetDict({word: dataset(word) for word in names})

    monkeypatch.setattr(hub.datasets, "load_dataset", load)
    task = make("mnli", hub={"path": "nyu-mll/glue", "name": "mnli", "revision": None})
    splits = task.load()
    assert {name: split["premise"][0] for name, split in splits.items()} == {
        "train": "train",
        "validation": "validation_matched",
        "test": "validation_matched",
        "validation_mismatched": "validation_mismatched",
    }
    assert calls == [("nyu-mll/glue", "mnli", None), ("nyu-mll/glue", "mnli", hub.CONVERTED)]


# Encoding


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))


def real_mbart_tokenizer() -> MBartTokenizer:
    pieces = ["\u2581the", "\u2581cat", "\u2581open", "\u2581file", "\u2581pisica", "\u2581deschis"]
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return MBartTokenizer(vocab=[*special, ("\u2581", -9.0), *((p, -1.0) for p in pieces)])


@pytest.mark.usefixtures("_own_cache")
def test_bart_texts_are_wrapped_and_cut(tmp_path: Path) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    task = make("xsum", path=write(tmp_path, "xsum"))
    encoded = task.encode(task.load(), tokenizer)
    row = encoded["train"][0]
    assert tokenizer.decode(row["labels"]) == "<s>One fell.</s>"
    assert len(row["input_ids"]) == 16
    assert row["input_ids"][0] == tokenizer.bos_token_id
    assert row["input_ids"][-1] == tokenizer.eos_token_id
    assert set(encoded["train"].column_names) == {"input_ids", "labels"}


@pytest.mark.usefixtures("_own_cache")
def test_knowing_a_language_code_is_not_ending_in_it(tmp_path: Path) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": tiny_text.CODES})
    task = make("wmt16_en_ro", path=write(tmp_path, "wmt16_en_ro"))
    row = task.encode(task.load(), tokenizer)["train"][0]
    assert tokenizer.decode(row["labels"]) == "<s>pisica</s>"


@pytest.mark.usefixtures("_own_cache")
def test_targets_are_longer_in_training_than_in_evaluation(tmp_path: Path) -> None:
    rows = [{**ROWS["xsum"][0], "summary": "a long summary " * 9}]
    task = make("xsum", path=write(tmp_path, "xsum", rows))
    encoded = task.encode(task.load(), tiny_text.bart_tokenizer())
    lengths = {name: len(split[0]["labels"]) for name, split in encoded.items()}
    assert lengths == {"train": 12, "validation": 8, "test": 8}


@pytest.mark.usefixtures("_own_cache")
@pytest.mark.parametrize("kind", ["real", "ours"])
def test_mbart_texts_end_in_their_language_code(kind: str, tmp_path: Path) -> None:
    tokenizer = (
        real_mbart_tokenizer() if kind == "real" else tiny_text.bart_tokenizer(tiny_text.CODES)
    )
    task = make("wmt16_en_ro", path=write(tmp_path, "wmt16_en_ro"))
    row = task.encode(task.load(), tokenizer)["train"][1]
    eos, english, romanian = tokenizer.convert_tokens_to_ids(["</s>", *tiny_text.CODES])
    assert row["input_ids"][-2:] == [eos, english]
    assert row["labels"][-2:] == [eos, romanian]
    assert eos not in row["input_ids"][:-2]
    assert len(row["input_ids"]) > 3
    assert len(row["labels"]) <= 12


@pytest.mark.usefixtures("_own_cache")
def test_the_real_mbart_tokenizer_agrees_with_its_own_template(tmp_path: Path) -> None:
    tokenizer = real_mbart_tokenizer()
    task = make("wmt16_en_ro", path=write(tmp_path, "wmt16_en_ro"))
    row = task.encode(task.load(), tokenizer)["train"][0]
    tokenizer.src_lang, tokenizer.tgt_lang = "en_XX", "ro_RO"
    own = tokenizer("the cat", text_target="pisica")
    assert (row["input_ids"], row["labels"]) == (own["input_ids"], own["labels"])


@pytest.mark.usefixtures("_own_cache")
def test_a_pair_of_texts_keeps_its_label(tmp_path: Path) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    task = make("mnli", path=write(tmp_path, "mnli"), max_source_length=64)
    encoded = task.encode(task.load(), tokenizer)["train"]
    assert encoded["labels"][:] == [0, 2]
    assert tokenizer.decode(encoded[0]["input_ids"]) == "<s>a man sleeps</s></s>a man rests</s>"


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
