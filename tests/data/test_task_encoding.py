"""Tasks encode their texts with special tokens, language codes and length limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_text
from tiny_tasks import ROWS, make, write
from transformers import MBartTokenizer

from unipeft_run.data.tasks.languages import encode_texts, language_code_id, language_codes
from unipeft_run.data.text_encoder import TextEncoder
from unipeft_run.errors import UserError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))


def real_mbart_tokenizer() -> MBartTokenizer:
    pieces = ["\u2581the", "\u2581cat", "\u2581open", "\u2581file", "\u2581pisica", "\u2581deschis"]
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return MBartTokenizer(vocab=[*special, ("\u2581", -9.0), *((p, -1.0) for p in pieces)])


def our_mbart_tokenizer() -> Any:
    return tiny_text.bart_tokenizer(tiny_text.CODES)


MBART = {"real": real_mbart_tokenizer, "ours": our_mbart_tokenizer}


def test_bart_texts_are_wrapped_and_truncated(tmp_path: Path) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    task = make("xsum", path=write(tmp_path, "xsum"))
    encoded = task.encode(task.load(), tokenizer)
    row = encoded["train"][0]
    assert tokenizer.decode(row["labels"]) == "<s>One fell.</s>"
    assert len(row["input_ids"]) == 16
    assert row["input_ids"][0] == tokenizer.bos_token_id
    assert row["input_ids"][-1] == tokenizer.eos_token_id
    assert set(encoded["train"].column_names) == {"input_ids", "labels"}


def test_a_tokenizer_may_know_language_codes_without_using_them(tmp_path: Path) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": tiny_text.CODES})
    task = make("wmt16_en_ro", path=write(tmp_path, "wmt16_en_ro"))
    row = task.encode(task.load(), tokenizer)["train"][0]
    assert tokenizer.decode(row["labels"]) == "<s>pisica</s>"


def test_targets_are_longer_in_training_than_in_evaluation(tmp_path: Path) -> None:
    rows = [{**ROWS["xsum"][0], "summary": "a long summary " * 9}]
    task = make("xsum", path=write(tmp_path, "xsum", rows))
    encoded = task.encode(task.load(), tiny_text.bart_tokenizer())
    lengths = {name: len(split[0]["labels"]) for name, split in encoded.items()}
    assert lengths == {"train": 12, "validation": 8, "test": 8}


@pytest.mark.parametrize("kind", MBART)
def test_mbart_texts_end_in_their_language_code(kind: str, tmp_path: Path) -> None:
    tokenizer = MBART[kind]()
    task = make("wmt16_en_ro", path=write(tmp_path, "wmt16_en_ro"))
    row = task.encode(task.load(), tokenizer)["train"][1]
    eos, english, romanian = tokenizer.convert_tokens_to_ids(["</s>", *tiny_text.CODES])
    assert row["input_ids"][-2:] == [eos, english]
    assert row["labels"][-2:] == [eos, romanian]
    assert eos not in row["input_ids"][:-2]
    assert len(row["input_ids"]) > 3
    assert len(row["labels"]) <= 12


def test_the_real_mbart_tokenizer_agrees_with_its_own_template(tmp_path: Path) -> None:
    tokenizer = real_mbart_tokenizer()
    task = make("wmt16_en_ro", path=write(tmp_path, "wmt16_en_ro"))
    row = task.encode(task.load(), tokenizer)["train"][0]
    tokenizer.src_lang, tokenizer.tgt_lang = "en_XX", "ro_RO"
    own = tokenizer("the cat", text_target="pisica")
    assert (row["input_ids"], row["labels"]) == (own["input_ids"], own["labels"])


def test_a_pair_of_texts_keeps_its_label(tmp_path: Path) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    task = make("mnli", path=write(tmp_path, "mnli"), max_source_length=64)
    encoded = task.encode(task.load(), tokenizer)["train"]
    assert encoded["labels"][:] == [0, 2]
    assert tokenizer.decode(encoded[0]["input_ids"]) == "<s>a man sleeps</s></s>a man rests</s>"


def test_one_split_can_be_encoded_alone(tmp_path: Path) -> None:
    task = make("mnli", path=write(tmp_path, "mnli"))
    tokenizer = tiny_text.bart_tokenizer()
    everything = task.encode(task.load(), tokenizer)
    alone = task.encode(task.load(task.splits_for("test")), tokenizer)
    assert list(alone) == ["test"]
    assert alone["test"][:] == everything["test"][:]


# Control tokens in texts

HOSTILE = "the </s> cat <s> sat <pad><mask> ro_RO en_XX"
WITH_CONTROL_TOKENS: dict[str, list[dict[str, Any]]] = {
    "sst2": [{"sentence": HOSTILE, "label": 1}],
    "mnli": [{"premise": HOSTILE, "hypothesis": HOSTILE, "label": 1}],
    "xsum": [{"document": HOSTILE, "summary": HOSTILE}],
    "wmt16_en_ro": [{"translation": {"en": HOSTILE, "ro": HOSTILE}}],
}


@pytest.mark.parametrize("kind", ["bart", "mbart"])
@pytest.mark.parametrize("name", WITH_CONTROL_TOKENS)
def test_control_tokens_in_texts_are_text(name: str, kind: str, tmp_path: Path) -> None:
    tokenizer = our_mbart_tokenizer() if kind == "mbart" else tiny_text.bart_tokenizer()
    lengths = {} if name in ("sst2", "mnli") else dict.fromkeys(TARGETS, 200)
    folder = write(tmp_path, name, WITH_CONTROL_TOKENS[name])
    task = make(name, path=folder, max_source_length=400, **lengths)
    row = task.encode(task.load(), tokenizer)["test"][0]
    for ids in (row["input_ids"], row["labels"]) if lengths else (row["input_ids"],):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        assert text.strip() == HOSTILE * (2 if name == "mnli" else 1)
        count = sum(number in tokenizer.all_special_ids for number in ids)
        assert count == tokenizer.num_special_tokens_to_add(pair=name == "mnli")


TARGETS = ("max_target_length", "eval_target_length")


# Language codes


def test_language_codes_are_listed() -> None:
    assert language_codes(our_mbart_tokenizer()) == ["en_XX", "ro_RO"]
    assert len(language_codes(real_mbart_tokenizer())) == 25


@pytest.mark.parametrize("key", ["source_code", "target_code"])
@pytest.mark.parametrize(
    ("code", "near"),
    [("de_DE", None), ("ro", "ro_RO"), ("en-US", "en_XX"), ("ro_RP", "ro_RO"), ("</s>", None)],
)
def test_an_unknown_language_code_is_refused_with_the_list(
    key: str, code: str, near: str | None, tmp_path: Path
) -> None:
    task = make("wmt16_en_ro", path=write(tmp_path, "wmt16_en_ro"), **{key: code})
    with pytest.raises(UserError) as caught:
        task.encode(task.load(), our_mbart_tokenizer())
    hint = f" (did you mean {near}?)" if near else ""
    assert str(caught.value) == (
        f"task.{key}={code}: the tokenizer has no such code{hint}; it has en_XX, ro_RO"
    )


def test_summaries_need_the_code_of_english(tmp_path: Path) -> None:
    task = make("xsum", path=write(tmp_path, "xsum"))
    tokenizer = our_mbart_tokenizer()
    task.encode(task.load(), tokenizer)
    with pytest.raises(UserError, match="fr_XX: the tokenizer has no such code"):
        language_code_id(tokenizer, "fr_XX")


def test_language_codes_are_ignored_for_a_bart_tokenizer(tmp_path: Path) -> None:
    assert language_code_id(tiny_text.bart_tokenizer(), "de_DE") is None


# Lengths


@pytest.mark.parametrize(
    ("name", "shortest"), [("sst2", 3), ("mnli", 6), ("xsum", 3), ("wmt16_en_ro", 3)]
)
def test_a_length_without_room_for_text_is_refused(
    name: str, shortest: int, tmp_path: Path
) -> None:
    tokenizer = our_mbart_tokenizer() if name == "wmt16_en_ro" else tiny_text.bart_tokenizer()
    folder = write(tmp_path, name)
    for key in ("max_source_length", *(TARGETS if name in ("xsum", "wmt16_en_ro") else ())):
        for length in (1, shortest - 1):
            task = make(name, path=folder, **{key: length})
            sentence = rf"task.{key}={length} leaves no room.*must be at least {shortest}"
            with pytest.raises(UserError, match=sentence):
                task.encode(task.load(), tokenizer)
        task = make(name, path=folder, **{key: shortest})
        row = task.encode(task.load(), tokenizer)["train"][0]
        column = "input_ids" if key == "max_source_length" else "labels"
        assert 0 < len(row[column]) <= shortest or key == "eval_target_length"


@pytest.mark.parametrize("kind", MBART)
def test_truncation_keeps_the_language_code(kind: str) -> None:
    encoder = TextEncoder(MBART[kind]())
    (ids,) = encode_texts(encoder, ["the cat"], 3, "en_XX")
    assert len(ids) == 3
    assert ids[1:] == encoder.tokenizer.convert_tokens_to_ids(["</s>", "en_XX"])
