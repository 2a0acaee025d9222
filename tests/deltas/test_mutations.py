"""Mutation tests: every misreading of the reference makes a check fail.

A check compares a case with its recorded logits, or tests where a dropout is applied. It passes
for our code. Each mutation patches one line, after which the check must fail.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from dropout_checks import (
    adapter_drops_after_its_activation,
    attention_change_precedes_the_dropout,
    ffn_change_follows_the_dropout,
    lora_drops_its_input,
)
from golden_cases import case_inputs, is_close, load_case
from torch.nn import functional as F

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.deltas import attention, insertions
from unipeft_run.deltas.compositions import Gated, LearnedScale, Scaled
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.forms.memory import Memory

Patch = pytest.MonkeyPatch


# -- the checks ------------------------------------------------------------------------------


def golden(case: str) -> bool:
    """Return whether the logits equal the recorded ones, without dropout."""
    _, tensors, model = load_case(case)
    with torch.no_grad():
        return is_close(model(**case_inputs(tensors)).logits, tensors["output/logits"])


# -- the mutations ---------------------------------------------------------------------------


def _table(family: str, **ffn: str) -> Callable[[Patch], None]:
    def patch(monkeypatch: Patch) -> None:
        table = FAMILIES[family]
        monkeypatch.setitem(FAMILIES, family, replace(table, ffn={**table.ffn, **ffn}))

    return patch


def _attention_table(family: str, **taps: str) -> Callable[[Patch], None]:
    def patch(monkeypatch: Patch) -> None:
        table = FAMILIES[family]
        rows = {**table.attention, **{k.replace("_", "."): v for k, v in taps.items()}}
        monkeypatch.setitem(FAMILIES, family, replace(table, attention=rows))

    return patch


def _queries(family: str, relu: str) -> Callable[[Patch], None]:
    def patch(monkeypatch: Patch) -> None:
        table = FAMILIES[family]
        queries = {**table.reference_query, "relu": relu}
        monkeypatch.setitem(FAMILIES, family, replace(table, reference_query=queries))

    return patch


def _method(owner: Any, name: str, wrong: Callable[..., Any]) -> Callable[[Patch], None]:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, wrong)


def _no_norm(self: Bottleneck, u: torch.Tensor) -> torch.Tensor:
    return self.up(self.dropout(self.activation(self.down(self.input_dropout(u)))))


def _drops_input(self: Bottleneck, u: torch.Tensor) -> torch.Tensor:
    return self.up(self.activation(self.down(self.dropout(self.input_dropout(u)))))


def _drops_inside(self: Bottleneck, u: torch.Tensor) -> torch.Tensor:
    return self.up(self.dropout(self.input_dropout(self.activation(self.down(u)))))


MEMORY = Memory.memory


def _swapped(self: Memory) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = MEMORY(self)
    return values, keys


def _plain_sum(self: Any, h: torch.Tensor, dh: torch.Tensor) -> torch.Tensor:
    return h + self.norm(dh)


def _interleaved(self: Memory) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = (p.view(p.size(0), -1, self.num_heads).permute(2, 0, 1) for p in MEMORY(self))
    return keys, values


def _reads_x(patch: Patch) -> None:
    patch.setattr(insertions, "sequential", insertions.parallel)
    patch.setattr(Delta, "reads_x", True)


def _reads_h(patch: Patch) -> None:
    def parallel(x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return h

    patch.setattr(insertions, "parallel", parallel)


def _ungated(patch: Patch) -> None:
    """The literal gate without its factor (1 - lambda)."""
    patch.setattr(Memory, "is_attention", False)
    patch.setattr(Gated, "forward", lambda self, h, dh, gate: h + gate * dh)


MUTATIONS: dict[str, tuple[Callable[[str], bool], str, Callable[[Patch], None]]] = {
    "scale: s is missing": (
        golden,
        "bart__scaled_pa_ffn_s4",
        _method(Scaled, "forward", _plain_sum),
    ),
    "scale: alpha / r is missing": (
        golden,
        "roberta__lora_attn",
        _method(Scaled, "forward", _plain_sum),
    ),
    "scale: the trained s is missing": (
        golden,
        "bart__pa_ffn_learnable_scalar",
        _method(LearnedScale, "forward", _plain_sum),
    ),
    "scale: BART's multi-head query is scaled": (
        golden,
        "bart__mh_pa_attn",
        _queries("bart", "normed"),
    ),
    "tap: mBART's parallel adapter reads what fc1 reads": (
        golden,
        "mbart__pa_ffn",
        _table("mbart", ffn="fc1:in -> fc2:dropped"),
    ),
    "tap: the parallel attention change comes after out_proj": (
        golden,
        "bart__pa_attn",
        _attention_table("bart", attn_context="{a}:in -> {a}.out_proj:out"),
    ),
    "tap: the sequential adapter reads x": (
        golden,
        "bart__sa_ffn",
        _reads_x,
    ),
    "tap: the parallel adapter reads h": (
        golden,
        "roberta__pa_ffn",
        _reads_h,
    ),
    "tap: Pfeiffer reads before the LayerNorm": (
        golden,
        "roberta__pfeiffer",
        _table("roberta", **{"ffn.block": "output.LayerNorm:same -> output.LayerNorm:in"}),
    ),
    "norm: the attention adapter has none": (
        golden,
        "bart__pa_attn",
        _method(Bottleneck, "forward", _no_norm),
    ),
    "norm: BART's multi-head query has none": (
        golden,
        "bart__mh_pa_attn",
        _queries("bart", "unscaled"),
    ),
    "norm: mBART's multi-head query has one": (
        golden,
        "mbart__mh_pa_attn",
        _queries("mbart", "normed"),
    ),
    "prefix: key and value are swapped": (
        golden,
        "bart__prefix",
        _method(Memory, "memory", _swapped),
    ),
    "prefix: key and value are swapped, no MLP": (
        golden,
        "bart__prefix_nomlp",
        _method(Memory, "memory", _swapped),
    ),
    "prefix: heads take interleaved columns": (
        golden,
        "roberta__prefix",
        _method(Memory, "heads", _interleaved),
    ),
    "prefix: padding hides it": (
        golden,
        "mbart__prefix",
        _method(
            attention,
            "_see_prefix",
            lambda mask, n: None if mask is None else F.pad(mask, (n, 0), value=False),
        ),
    ),
    "gate: h keeps its full weight": (
        golden,
        "bart__prefix_crossattn_noln_gate",
        _ungated,
    ),
    "dropout: it hits BART's FFN change": (
        ffn_change_follows_the_dropout,
        "bart",
        _table("bart", ffn="fc1:in -> fc2:out"),
    ),
    "dropout: it hits mBART's FFN change": (
        ffn_change_follows_the_dropout,
        "mbart",
        _table("mbart", ffn="final_layer_norm:in -> fc2:out"),
    ),
    "dropout: it hits RoBERTa's FFN change": (
        ffn_change_follows_the_dropout,
        "roberta",
        _table("roberta", ffn="intermediate.dense:in -> output.dense:out"),
    ),
    "dropout: RoBERTa's attention change comes after it": (
        attention_change_precedes_the_dropout,
        "roberta",
        _attention_table("roberta", attn_output="{a}.self:in -> {a}.output.dropout:out"),
    ),
    "dropout: BART's attention change comes after it": (
        attention_change_precedes_the_dropout,
        "bart",
        _attention_table("bart", attn_output="{a}:in -> {a}.out_proj:dropped"),
    ),
    "dropout: LoRA's comes after W_down": (
        lora_drops_its_input,
        "",
        _method(Bottleneck, "forward", _drops_inside),
    ),
    "dropout: the adapter's comes before W_down": (
        adapter_drops_after_its_activation,
        "",
        _method(Bottleneck, "forward", _drops_input),
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_check_passes_and_the_mutation_breaks_it(mutation: str, monkeypatch: Patch) -> None:
    check, case, mutate = MUTATIONS[mutation]
    assert check(case), "unmutated"
    mutate(monkeypatch)
    assert not check(case)


@pytest.mark.parametrize("family", ["bart", "mbart", "roberta"])
def test_both_dropout_checks_pass_in_every_family(family: str) -> None:
    assert ffn_change_follows_the_dropout(family)
    assert attention_change_precedes_the_dropout(family)


def test_every_kind_of_mutation_is_tested() -> None:
    kinds = {name.partition(":")[0] for name in MUTATIONS}
    assert kinds == {"scale", "tap", "norm", "prefix", "gate", "dropout"}
