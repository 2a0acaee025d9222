"""`generate` against a literal restatement of the 2021 rules and against transformers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from attached_models import METHODS
from beam_search_2021 import generate_2021
from sampling import sampled
from tiny import SEQ2SEQ
from tiny_generation import (
    STARTS,
    draw,
    generate_today,
    peaked_model,
    tiny_case,
    without_padding,
)
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig

from unipeft_run import generate
from unipeft_run.deltas.attach import attach, find_deltas
from unipeft_run.deltas.compositions import Add, Gated
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.slots import Slot
from unipeft_run.evaluation.generation import decoder, encode, onednn, search
from unipeft_run.evaluation.generation.beam_search import RULES

FAMILIES = tuple(STARTS)
FAST, ALL = 3, 40  # seeds
CASES = [pytest.param(seed, marks=() if seed < FAST else pytest.mark.slow) for seed in range(ALL)]
PAIRS = [("bart", "sdpa"), ("mbart", "eager"), ("bart", "eager"), ("mbart", "sdpa")]


@pytest.mark.parametrize("seed", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_rules_of_2021_on_random_models(family: str, seed: int) -> None:
    model = peaked_model(family, seed=seed, core=("sdpa", "eager")[seed % 2])
    for number in range(5):
        sources, decoding = draw(100 * seed + number, family)
        generated = generate(model, **sources, decoding=decoding)
        restated = generate_2021(model, **sources, **decoding)
        assert without_padding(generated) == restated, decoding


@pytest.mark.parametrize("seed", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_rules_of_transformers_on_random_models(family: str, seed: int) -> None:
    model = peaked_model(family, seed=seed, core=("sdpa", "eager")[seed % 2])
    for number in range(5):
        sources, decoding = draw(100 * seed + number, family)
        generated = generate(model, **sources, decoding=decoding, rules="transformers")
        assert torch.equal(generated, generate_today(model, sources, decoding)), decoding


@pytest.mark.parametrize(
    ("method", "family", "core"), sampled(((m, *pair) for m in METHODS for pair in PAIRS), 7)
)
def test_every_method(method: str, family: str, core: str) -> None:
    model = peaked_model(family, method, core=core)
    sources, decoding = draw(METHODS.index(method), family)
    assert without_padding(generate(model, **sources, decoding=decoding)) == generate_2021(
        model, **sources, **decoding
    )
    today = generate(model, **sources, decoding=decoding, rules="transformers")
    assert torch.equal(today, generate_today(model, sources, decoding))
    greedy = {**decoding, "num_beams": 1}
    tokens = [generate(model, **sources, decoding=greedy, rules=r) for r in RULES]
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[0], generate_today(model, sources, greedy))


def memory(composition: str, activation: str, query: str, layers: Any = "all") -> Slot:
    """Build a memory at the heads of some layers, of a kind that no method of `conf/` has."""
    settings: Any = {"activation": activation, "query": query, "length": 4, "mlp_width": 8}
    return Slot(
        form=partial(Memory, **settings),
        insertion="parallel",
        composition={"gated": Gated, "add": Add}[composition],
        representation={"sites": ["attn.heads"], "layers": layers},
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "slot",
    [
        memory("gated", "softmax", "scaled", layers=[1]),  # masks differ between layers
        memory("gated", "softmax", "unscaled"),
        memory("gated", "softmax", "normed"),
        memory("add", "softmax", "scaled"),
        memory("add", "relu", "normed_unscaled"),
    ],
    ids=["one_layer", "unscaled", "normed", "add", "relu"],
)
def test_memories_of_every_kind(slot: Slot, family: str) -> None:
    model = peaked_model(family)
    attach(model, {"attn": slot})
    model.double()
    with torch.no_grad():
        for _, delta in find_deltas(model):
            for parameter in delta.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    sources, decoding = draw(3, family)
    assert without_padding(generate(model, **sources, decoding=decoding)) == generate_2021(
        model, **sources, **decoding
    )
    for _, delta in find_deltas(model):  # the search leaves no state behind
        assert "memory" not in vars(delta.form)
        assert delta.x is None


# The search itself


def test_a_batch_of_one_gives_the_rows_of_the_batch() -> None:
    model, sources, decoding = tiny_case(no_repeat_ngram_size=2)
    together = without_padding(generate(model, **sources, decoding=decoding))
    assert len(together) > 2
    for row, tokens in enumerate(together):
        single = {name: tensor[row : row + 1] for name, tensor in sources.items()}
        assert without_padding(generate(model, **single, decoding=decoding)) == [tokens]


@pytest.mark.parametrize("beams", [1, 3])
def test_padding_on_the_left_and_on_the_right_of_a_batch(beams: int) -> None:
    """Positions include the padding, as in transformers."""
    model, sources, decoding = tiny_case(num_beams=beams)
    decoding |= {"forced_bos": False, "forced_eos": True, "min_length": 0, "early_stopping": False}
    decoding |= {"length_penalty": 1.0, "decoder_start_token_id": 2}
    for turned in (sources, {name: tensor.flip(1) for name, tensor in sources.items()}):
        generated = generate(model, **turned, decoding=decoding, rules="transformers")
        assert torch.equal(generated, generate_today(model, turned, decoding))


def test_finished_sources_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sources, decoding = tiny_case(max_length=16, early_stopping=True)
    sizes: list[int] = []
    step = decoder.Decoder.__call__

    def count(self: Any, tokens: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        sizes.append(len(tokens))
        return step(self, tokens, visible)

    monkeypatch.setattr(decoder.Decoder, "__call__", count)
    leaving = generate(model, **sources, decoding=decoding)
    assert sizes[0] > sizes[-1] >= 1
    monkeypatch.setattr(search, "DROP_FINISHED_AT", 2.0)
    sizes.clear()
    assert torch.equal(generate(model, **sources, decoding=decoding), leaving)
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("beams", [1, 3])
def test_rare_checks_for_finished_sources_change_nothing(
    beams: int, rules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sources, decoding = tiny_case(num_beams=beams, max_length=16)
    every_step = generate(model, **sources, decoding=decoding, rules=rules)
    monkeypatch.setattr(search, "CHECK_EVERY", {"cpu": 8})
    assert torch.equal(generate(model, **sources, decoding=decoding, rules=rules), every_step)


@pytest.mark.parametrize("rules", RULES)
def test_more_beams_than_tokens(rules: Any) -> None:
    """The beams that start at -1e9 are then among the best."""
    torch.manual_seed(0)
    config = BartConfig(**{**SEQ2SEQ, "vocab_size": 6})
    model = BartForConditionalGeneration(config).eval().double()
    model.generation_config = GenerationConfig()
    sources = {"input_ids": torch.tensor([[3, 4, 5]]), "attention_mask": torch.ones(1, 3).long()}
    _, decoding = draw(0, "bart", num_beams=9, max_length=7, min_length=0, forced_bos=False)
    generated = generate(model, **sources, decoding=decoding, rules=rules)
    if rules == "2021":
        assert without_padding(generated) == generate_2021(model, **sources, **decoding)
    else:
        assert torch.equal(generated, generate_today(model, sources, decoding))


@pytest.mark.parametrize("beams", [1, 2])
def test_shape_type_and_first_token_of_the_result(beams: int) -> None:
    model, sources, decoding = tiny_case(num_beams=beams, decoder_start_token_id=7)
    sources["input_ids"] = sources["input_ids"].int()
    generated = generate(model, **sources, decoding=decoding)
    assert generated.dtype == torch.int32
    assert not generated.is_inference()
    assert set(generated[:, 0].tolist()) == {7}
    assert generated.size(0) == len(sources["input_ids"])
    assert generated.size(1) == max(map(len, without_padding(generated)))


def test_lengths_and_forced_tokens() -> None:
    model, sources, decoding = tiny_case(min_length=9, forced_bos=True)
    generated = generate(model, **sources, decoding=decoding)
    assert set(generated[:, 1].tolist()) == {0}
    assert all(len(row) >= 10 for row in without_padding(generated))
    assert all(row[-1] == 2 for row in without_padding(generated))  # forced_eos is the default
    other = {**decoding, "forced_bos_token_id": 11, "forced_eos_token_id": 12, "min_length": 12}
    generated = generate(model, **sources, decoding=other)
    assert set(generated[:, 1].tolist()) == {11}
    assert set(generated[:, 11].tolist()) == {12}
    endless = {**decoding, "eos_token_id": None, "forced_eos": False}
    assert generate(model, **sources, decoding=endless).size(1) == 12


@pytest.mark.parametrize("beams", [1, 3])
def test_encoder_states_can_be_given(beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sources, decoding = tiny_case(num_beams=beams)
    expected = generate(model, **sources, decoding=decoding)
    states = encode(model, **sources)
    monkeypatch.setattr(type(model.get_encoder()), "forward", None)
    generated = generate(model, **sources, decoding=decoding, encoder_states=states)
    assert torch.equal(generated, expected)


@pytest.mark.parametrize("core", ["sdpa", "eager"])
@pytest.mark.parametrize("method", [None, "mam", "prompt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_gives_tokens_near_those_of_double(
    dtype: torch.dtype, method: str | None, core: str
) -> None:
    model = peaked_model("bart", method, core=core)
    sources, decoding = draw(8, "bart", max_length=6, forced_bos=False)
    exact = generate(model, **sources, decoding=decoding)
    generated = generate(model.to(dtype), **sources, decoding=decoding)
    if dtype == torch.float32:
        assert torch.equal(generated, exact)
    else:
        assert generated.dtype == torch.int64
        assert generated[:, :2].tolist() == exact[:, :2].tolist()


@pytest.mark.parametrize("avx512", [True, False])
def test_products_through_onednn_give_the_same_tokens(
    avx512: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = peaked_model("bart", "mam").float()
    sources, decoding = draw(8, "bart", max_length=24, min_length=20)
    product, calls, packed = onednn.Product.__call__, [], []

    def count(self: Any, x: torch.Tensor) -> torch.Tensor:
        calls.append(self.linear)
        result = product(self, x)
        packed.extend([] if self.packed is None else [self.linear])
        return result

    monkeypatch.setattr(onednn, "_has_avx512", lambda: avx512)
    monkeypatch.setattr(onednn.Product, "__call__", count)
    generated = generate(model, **sources, decoding=decoding)
    assert model.get_encoder().layers[0].fc1 in calls
    assert model.lm_head in packed
    assert model.get_encoder().layers[0].fc1 not in packed  # used once
    assert not any("forward" in vars(module) for module in model.modules())
    monkeypatch.setattr(onednn, "_supported_types", lambda device: ())
    calls.clear()
    assert torch.equal(generate(model, **sources, decoding=decoding), generated)
    assert not calls


def test_bf16_models_generate_where_the_processor_has_no_bf16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = peaked_model("bart").bfloat16()
    sources, decoding = draw(8, "bart", max_length=24, min_length=20)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    generated = generate(model, **sources, decoding=decoding)
    assert generated.size(1) > onednn.MIN_PRODUCTS
