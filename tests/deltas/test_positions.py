"""Deltas that take learned positions leave fewer for the text."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from tiny_families import backbone

import unipeft
from unipeft_run.backbones.load import check_lengths
from unipeft_run.deltas.positions import count_occupied
from unipeft_run.errors import UserError
from unipeft_run.task_types.registry import TASK_TYPES

POSITIONS = 64
SHIFTED = {"bottleneck": 7, "form.positions": "shifted"}


def build(*methods: Any, family: str = "gpt2") -> Any:
    model = backbone(family)
    settings: dict[str, Any] = {"attn": SHIFTED} if "prefix_nomlp" in methods else {}
    unipeft.attach(model, *methods, **(settings or {"bottleneck": 5}))
    return model


@pytest.mark.parametrize(("method", "occupied"), [("prompt", 5), ("prefix_nomlp", 7)])
def test_the_text_has_what_is_left(method: str, occupied: int) -> None:
    model = build(method)
    assert count_occupied(model) == occupied
    ids = torch.arange(POSITIONS)[None]
    message = f"{POSITIONS} tokens, but the deltas leave {POSITIONS - occupied} positions for text"
    with torch.no_grad():
        cache = model(ids[:, occupied:], use_cache=True).past_key_values  # fits exactly
        with pytest.raises(UserError, match=message):
            model(ids)
        with pytest.raises(UserError, match=f"{POSITIONS - occupied + 1} tokens, but the deltas"):
            model(ids[:, :1], past_key_values=cache)


def test_lengths_in_the_configuration_are_checked() -> None:
    model = build("prompt")
    config, occupied = model.config, count_occupied(model)
    check_lengths([("task.max_length", POSITIONS - 5)], config, occupied)
    message = (
        "task.max_length: 60 tokens, but this backbone has 64 positions, and the deltas take 5"
    )
    with pytest.raises(UserError, match=message):
        check_lengths([("task.max_length", 60)], config, occupied)


def test_batches_are_not_padded_into_the_positions_of_a_prompt() -> None:
    task, tokenizer = SimpleNamespace(loss_on="all"), SimpleNamespace(pad_token_id=1)
    model = build("prompt")
    collator = TASK_TYPES["causal"].build_collator(cast("Any", task), tokenizer, model)
    assert collator.pad_sources([[5] * 58])["input_ids"].size(1) == POSITIONS - 5


@pytest.mark.parametrize("family", ["llama", "t5", "roberta", "vit"])
def test_other_positions_are_not_taken(family: str) -> None:
    assert count_occupied(build("prompt", family=family)) == 0


def test_other_deltas_take_no_positions() -> None:
    model = backbone("gpt2")
    unipeft.attach(model, "prefix")
    assert count_occupied(model) == 0
