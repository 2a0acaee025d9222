"""Prefixes with a mask of the user's own, boolean or additive, and with a static cache."""

from typing import Any

import pytest
import torch
from named_deltas import attach_perturbed
from tiny_families import backbone, batch

from unipeft_run.errors import UserError

CORES = ("sdpa", "eager")
SEQ2SEQ = ("bart", "t5")


def prefixed(family: str, core: str = "sdpa", **settings: Any) -> Any:
    model = backbone(family).double()
    model.set_attn_implementation(core)
    attach_perturbed(model, "prefix", bottleneck=4, mlp_width=8, **settings)
    return model


@torch.no_grad()
def logits(model: Any, family: str, mask: torch.Tensor | None) -> torch.Tensor:
    ids = batch(family)["input_ids"]
    if family in SEQ2SEQ:
        output = model(input_ids=ids, decoder_input_ids=ids, decoder_attention_mask=mask)
    else:
        output = model(input_ids=ids, attention_mask=mask)
    return output.logits  # type: ignore[no-any-return]


def causal(family: str, hidden: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return an additive causal mask, [B, 1, T, T]."""
    rows, length = batch(family)["input_ids"].shape
    mask = torch.full((length, length), hidden, dtype=dtype).triu(1)
    return mask.expand(rows, 1, -1, -1)


@pytest.mark.parametrize("hidden", [torch.finfo(torch.float64).min, -torch.inf])
@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("family", ["llama", "gpt2", *SEQ2SEQ])
def test_an_additive_causal_mask_changes_nothing(family: str, core: str, hidden: float) -> None:
    model = prefixed(family, core)
    expected = logits(model, family, None)
    for mask in (causal(family, hidden), causal(family, hidden) == 0):
        torch.testing.assert_close(logits(model, family, mask), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_an_additive_mask_in_another_precision(family: str) -> None:
    model = prefixed(family).bfloat16()
    expected = logits(model, family, None)
    lowest = torch.finfo(torch.float32).min  # not a number of bfloat16
    mask = causal(family, lowest, torch.float32)
    torch.testing.assert_close(logits(model, family, mask), expected, rtol=0, atol=0.2)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_an_additive_mask_weights_the_keys(family: str, core: str) -> None:
    model, plain = prefixed(family, core), backbone(family).double()
    plain.set_attn_implementation(core)
    mask = causal(family, -torch.inf) + torch.linspace(-2, 2, 9, dtype=torch.float64)
    attach_perturbed(plain, "mh_parallel", bottleneck=4, mlp_width=8)
    for each in (model, plain):
        assert not torch.allclose(logits(each, family, mask), logits(each, family, None))
    shifted = mask + 3.0  # the prefix is not shifted, so that it weighs less
    assert not torch.allclose(logits(model, family, shifted), logits(model, family, mask))
    torch.testing.assert_close(logits(plain, family, shifted), logits(plain, family, mask))


@pytest.mark.parametrize("core", CORES)
def test_a_gate_computed_from_all_logits_sees_an_additive_mask(core: str) -> None:
    model = prefixed("llama", core, attn={"form.query": "unscaled"})
    expected = logits(model, "llama", None)
    mask = causal("llama", -torch.inf)
    torch.testing.assert_close(logits(model, "llama", mask), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("core", CORES)
def test_a_mask_of_integers_is_refused(core: str) -> None:
    model = prefixed("llama", core)
    with pytest.raises(UserError, match=r"dtype torch.int64: must be bool, .* or floating point"):
        logits(model, "llama", (causal("llama", -1.0) == 0).long())


@pytest.mark.parametrize("method", ["prefix", "mam"])
def test_t5_generates_the_same_with_a_static_cache(method: str) -> None:
    model = backbone("t5").double()
    attach_perturbed(model, method, bottleneck=4, mlp_width=8, strength=0.5)
    inputs = {key: batch("t5")[key] for key in ("input_ids", "attention_mask")}
    settings: dict[str, Any] = {
        "max_new_tokens": 8,
        "min_new_tokens": 8,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
        "disable_compile": True,
    }
    dynamic, static = (
        torch.stack(model.generate(**inputs, **settings, cache_implementation=kind).logits)
        for kind in (None, "static")
    )
    torch.testing.assert_close(static, dynamic, rtol=0, atol=1e-9)
