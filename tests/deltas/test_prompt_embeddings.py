"""Prompts of stacks that make their own embeddings: T5 and decoders."""

from pathlib import Path
from typing import Any

import pytest
import torch
from named_deltas import delta_names, perturb
from tiny_families import backbone, batch

import unipeft
from unipeft_run.errors import UserError

FAMILIES = ["t5", "t5_gated", "gpt2", "llama"]


def outputs(model: Any, **given: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(**given).logits  # type: ignore[no-any-return]


def resize(model: Any) -> Any:
    """Replace the embeddings by equal ones."""
    model.resize_token_embeddings(97, mean_resizing=False)
    model.resize_token_embeddings(96, mean_resizing=False)
    return model


def prompted(model: Any) -> Any:
    torch.manual_seed(0)
    unipeft.attach(model, "prompt", bottleneck=4)
    perturb(model)
    return model


@pytest.mark.parametrize("family", ["t5", "gpt2", "llama"])
def test_a_prompt_after_resizing_is_the_same(family: str, tmp_path: Path) -> None:
    given = batch(family)
    plain, resized = prompted(backbone(family)), prompted(resize(backbone(family)))
    assert delta_names(resized) == delta_names(plain)
    expected = outputs(plain, **given)
    assert torch.equal(outputs(resized, **given), expected)
    unipeft.save(plain, tmp_path / "saved")
    loaded = resize(backbone(family))
    unipeft.load(loaded, tmp_path / "saved")
    assert torch.equal(outputs(loaded, **given), expected)
    unipeft.detach(resized)
    assert torch.equal(outputs(resized, **given), outputs(backbone(family), **given))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_precedes_given_embeddings(family: str) -> None:
    model, given = prompted(backbone(family)), batch(family)
    expected = outputs(model, **given)
    embeddings = model.get_input_embeddings()(given.pop("input_ids"))
    assert torch.equal(outputs(model, inputs_embeds=embeddings, **given), expected)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_embeddings_may_grow_in_place(family: str) -> None:
    model, given = prompted(backbone(family)), batch(family)
    expected = outputs(model, **given)
    assert torch.equal(outputs(resize(model), **given), expected)


def test_embeddings_replaced_after_attach_are_refused() -> None:
    model = resize(prompted(backbone("t5")))
    with pytest.raises(UserError, match="call resize_token_embeddings before it"):
        outputs(model, **batch("t5"))
