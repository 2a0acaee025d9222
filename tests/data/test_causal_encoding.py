"""Prompts and responses as token ids and batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_text
import torch
from tiny_causal import FAMILIES, PAIRS, choice_task, model, pairs_task
from transformers import LlamaTokenizer

from unipeft_run.data.batching import train_loader
from unipeft_run.data.causal_batches import CausalCollator
from unipeft_run.data.new_inputs import encode_inputs
from unipeft_run.data.text_encoder import TextEncoder
from unipeft_run.errors import UserError

BOS, EOS = 0, 2


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))


def ids_of(text: str) -> list[int]:
    return tiny_text.bart_tokenizer()(text, add_special_tokens=False)["input_ids"]


def encode(task: Any, tokenizer: Any = None) -> Any:
    return task.encode(task.load(), tokenizer or tiny_text.bart_tokenizer())


def test_an_example_is_start_prompt_response_end(tmp_path: Path) -> None:
    encoded = encode(pairs_task(tmp_path))
    for row, pair in zip(encoded["train"], PAIRS, strict=True):
        prompt = [BOS, *ids_of(f"{pair['prompt']} >")]
        assert row["prompt_length"] == len(prompt)
        assert row["input_ids"] == [*prompt, *ids_of(f" {pair['response']}"), EOS]
    assert encoded["test"][:] == encoded["train"][:]


def test_a_tokenizer_without_start_token_adds_none(tmp_path: Path) -> None:
    tokenizer = tiny_text.bart_tokenizer()
    tokenizer.backend_tokenizer.post_processor = None
    row = encode(pairs_task(tmp_path), tokenizer)["train"][0]
    assert row["input_ids"][: row["prompt_length"]] == ids_of("the cat sat >")
    empty = pairs_task(tmp_path, prompt_template="")
    assert encode(empty, tokenizer)["train"][0]["input_ids"][0] == EOS  # to continue something


def test_prompts_lose_their_beginning_and_responses_their_end(tmp_path: Path) -> None:
    row = encode(pairs_task(tmp_path, max_source_length=4, max_target_length=3))["train"][1]
    assert row["input_ids"] == [
        BOS,
        *ids_of("a package that >")[-3:],
        *ids_of(" shows the weather in the terminal")[:3],
    ]
    assert row["prompt_length"] == 4


@pytest.mark.parametrize("key", ["max_source_length", "max_target_length"])
def test_lengths_must_leave_room(key: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"task\.{key}=1 leaves no room"):
        encode(pairs_task(tmp_path, **{key: 1}))


def test_control_tokens_in_texts_are_plain_text(tmp_path: Path) -> None:
    task = pairs_task(tmp_path)
    texts = {"prompt": ["</s> </s>"]}
    (ids,) = encode_inputs(task, texts, tiny_text.bart_tokenizer())
    assert EOS not in ids


def llama_tokenizer() -> LlamaTokenizer:
    """Build a tokenizer like Llama's, which marks the start of a text with a space."""
    letters = sorted(set("".join(tiny_text.TEXT)) | set("<|>{}/") - {" "})
    pieces = ["<unk>", "<s>", "</s>", "\u2581", *letters]
    return LlamaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])


@pytest.mark.parametrize("build", [tiny_text.bart_tokenizer, llama_tokenizer])
def test_control_tokens_in_a_prompt_template_are_themselves(build: Any, tmp_path: Path) -> None:
    tokenizer = build()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|user|>{"]})
    template = "<|user|>{{ {prompt}</s> <|user|>cat"
    task = pairs_task(tmp_path, prompt_template=template, max_source_length=99)
    given = ["the cat", "<|user|>{ the </s>"]
    plain, hostile = encode_inputs(task, {"prompt": given}, tokenizer)
    assert plain == tokenizer("<|user|>{ the cat</s> <|user|>cat")["input_ids"][: len(plain)]
    marks = ["<|user|>{", "</s>", "<|user|>"]
    for ids in (plain, hostile):
        tokens = tokenizer.convert_ids_to_tokens(ids)
        special = set(tokenizer.all_special_tokens) - {"<s>"}
        assert [token for token in tokens if token in special] == marks


def test_a_response_template_has_no_control_tokens(tmp_path: Path) -> None:
    task = pairs_task(tmp_path, response_template=" {response}</s>")
    with pytest.raises(UserError, match=r"task\.response_template has the control token '</s>'"):
        encode(task)


def test_a_prompt_template_does_not_begin_with_the_start_token(tmp_path: Path) -> None:
    task = pairs_task(tmp_path, prompt_template="<s>{prompt} ")
    message = r"task\.prompt_template begins with '<s>'"
    with pytest.raises(UserError, match=message):
        encode(task)
    with pytest.raises(UserError, match=message):
        encode_inputs(task, {"prompt": ["the cat"]}, tiny_text.bart_tokenizer())


def test_new_inputs_are_encoded_as_prompts(tmp_path: Path) -> None:
    task = pairs_task(tmp_path)
    inputs = {"prompt": [pair["prompt"] for pair in PAIRS]}
    encoded = encode(task)["test"]
    expected = [row["input_ids"][: row["prompt_length"]] for row in encoded]
    assert encode_inputs(task, inputs, tiny_text.bart_tokenizer()) == expected


def test_choices_are_encoded_without_end_token(tmp_path: Path) -> None:
    encoded = encode(choice_task(tmp_path, by="likelihood"))
    row = encoded["test"][0]
    assert row["choices"] == [ids_of(" a mat"), ids_of(" the cat"), ids_of(" the weather")]
    assert row["input_ids"][row["prompt_length"] :] == [*row["choices"][1], EOS]
    assert "choices" not in encode(choice_task(tmp_path))["test"].column_names


def test_the_cache_tells_templates_and_decisions_apart(tmp_path: Path) -> None:
    keys = [
        choice_task(tmp_path)._cache_key(True),
        choice_task(tmp_path, by="likelihood")._cache_key(True),
        choice_task(tmp_path, prompt_template="{instruction}")._cache_key(True),
        choice_task(tmp_path, response_template="{answer}")._cache_key(True),
    ]
    assert len({repr(key) for key in keys}) == 4


# Batches

ROWS = [
    {"input_ids": [0, 5, 6, 7, 8, 2], "prompt_length": 3},
    {"input_ids": [0, 9, 2], "prompt_length": 2},
]


@pytest.mark.parametrize(
    ("loss_on", "labels"),
    [
        ("response", [[-100, -100, -100, 7, 8, 2], [-100, -100, 2, -100, -100, -100]]),
        ("all", [[-100, 5, 6, 7, 8, 2], [-100, 9, 2, -100, -100, -100]]),
    ],
)
def test_labels_are_the_ids_that_something_predicts(loss_on: Any, labels: Any) -> None:
    batch = CausalCollator(1, multiple=1, loss_on=loss_on)(ROWS)
    assert batch["labels"].tolist() == labels
    assert batch["input_ids"].tolist() == [[0, 5, 6, 7, 8, 2], [0, 9, 2, 1, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]


def test_prompts_are_padded_on_the_left() -> None:
    batch = CausalCollator(1, multiple=4).pad_prompts([[0, 5, 6], [0]])
    assert batch["input_ids"].tolist() == [[1, 0, 5, 6], [1, 1, 1, 0]]
    assert batch["attention_mask"].tolist() == [[0, 1, 1, 1], [0, 0, 0, 1]]
    assert batch["position_ids"].tolist() == [[0, 0, 1, 2], [0, 0, 0, 0]]


@pytest.mark.parametrize("family", FAMILIES)
def test_both_paddings_give_the_same_logits(family: str) -> None:
    own, collator = model(family, 60).double(), CausalCollator(1, multiple=8)
    prompts = [[0, 5, 6, 7, 8], [0, 9], [0, 11, 12, 13, 14, 15, 16, 17, 18]]
    left, right = collator.pad_prompts(prompts), collator.pad_sources(prompts)
    with torch.no_grad():
        by_left, by_right = own(**left).logits, own(**right).logits
    for row, prompt in enumerate(prompts):
        alone = own(input_ids=torch.tensor([prompt])).logits[0]
        torch.testing.assert_close(by_left[row, -len(prompt) :], alone, rtol=0, atol=1e-6)
        torch.testing.assert_close(by_right[row, : len(prompt)], alone, rtol=0, atol=1e-6)


def test_training_batches_hold_similar_lengths(tmp_path: Path) -> None:
    encoded = encode(pairs_task(tmp_path))["train"]
    loader = train_loader(encoded, CausalCollator(1, multiple=1), seed=0, batch_size=2)
    widths = sorted(batch["input_ids"].size(1) for batch in loader)
    lengths = sorted(len(row["input_ids"]) for row in encoded)
    assert widths == [lengths[1], lengths[3]]


def test_encoders_share_a_vocabulary(tmp_path: Path) -> None:
    encoder = TextEncoder(tiny_text.bart_tokenizer())
    task = pairs_task(tmp_path)
    assert task.encode_responses(["cat"], encoder) == [[*ids_of("cat"), EOS]]
