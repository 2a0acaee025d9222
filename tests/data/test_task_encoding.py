"""Tasks: their texts as token ids, with special tokens, language codes and limits."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_text
from tiny_tasks import ROWS, make, write
from transformers import MBartTokenizer

from unipeft_run.data.tasks.languages import encode_texts
from unipeft_run.errors import UserError


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


def test_a_length_without_room_for_a_text_is_a_sentence() -> None:
    tokenizer = real_mbart_tokenizer()
    (ids,) = encode_texts(tokenizer, ["the cat"], 3, "en_XX")
    assert len(ids) == 3
    with pytest.raises(UserError, match="a length of 2 has no room beside </s> and en_XX"):
        encode_texts(tokenizer, ["the cat"], 2, "en_XX")
