"""The hypercomplex bottleneck equals sums of Kronecker products, and its rules are shared."""

from typing import Any

import pytest
import torch
from attached_models import TASKS, attach_method
from tiny import backbone, batch
from tiny_config import configured
from torch.nn import functional as F

from unipeft_run.deltas.attach import attach, find_deltas
from unipeft_run.deltas.build import backbone_size
from unipeft_run.deltas.counting.counts import count
from unipeft_run.deltas.delta_file import inference_tensors, tabulate_parameters
from unipeft_run.deltas.fold import fold
from unipeft_run.deltas.forms.hypercomplex import Hypercomplex, HypercomplexLinear, Rules
from unipeft_run.deltas.slots import build_slots
from unipeft_run.errors import UserError


def literal(linear: HypercomplexLinear, x: torch.Tensor) -> torch.Tensor:
    """Compute x H + b with H = sum_i kron(A_i, S_i T_i)."""
    rules, left, right = linear.rules.weight, linear.left, linear.right
    h = sum(torch.kron(a, s @ t) for a, s, t in zip(rules, left, right, strict=True))
    y = x @ h  # type: ignore[operator]
    return y if linear.bias is None else y + linear.bias


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize(("width_in", "width_out", "n"), [(32, 8, 4), (8, 32, 4), (6, 15, 3)])
def test_a_map_is_a_sum_of_kronecker_products(
    width_in: int, width_out: int, n: int, rank: int
) -> None:
    rules = Rules(n, 1.0, learn=True)
    linear = HypercomplexLinear(width_in, width_out, rules, rank, bias=True).double()
    with torch.no_grad():
        linear.bias.normal_()  # type: ignore[union-attr]
    x = torch.randn(2, 5, width_in, dtype=torch.float64)
    torch.testing.assert_close(linear(x), literal(linear, x), rtol=0, atol=1e-12)
    dense = F.linear(x, linear.weight, linear.bias)
    torch.testing.assert_close(linear(x), dense, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", TASKS)
def test_one_tensor_of_rules_serves_both_slots(family: str) -> None:
    model, _ = attach_method("compacter", family, "head=frozen")
    forms: list[Any] = [delta.form for _, delta in find_deltas(model)]
    assert {type(form) for form in forms} == {Hypercomplex}
    assert len({map_.rules for form in forms for map_ in (form.down, form.up)}) == 1
    names = [name for name, _ in inference_tensors(model) if "rules" in name]
    assert len(names) == 1
    model(**batch(family)).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_rules_may_be_separate_or_fixed() -> None:
    overrides = ("ffn.form.shared_rules=false", "attn.form.learn_rules=false", "head=frozen")
    model, config = attach_method("compacter", "roberta", *overrides)
    rules = {id(d.form.down.rules): d.form.down.rules for _, d in find_deltas(model)}
    assert [r.weight.requires_grad for r in rules.values()].count(False) == 1
    assert len(rules) == 1 + 2  # the attention's, and each FFN's own
    counted = count(model.config, build_slots(config))
    table = tabulate_parameters(model, backbone_size(model))
    assert counted["stored"] == table["stored"] == counted["trained"] + 4**3
    assert table["trained"] == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_count_is_that_of_the_paper() -> None:
    """4 k + 4 d a map and its bias, for each of L adapters, and n^3 rules once (section 4)."""
    model, config = attach_method("compacter", "bart", "head=frozen")
    counted, adapters, d, r = count(model.config, build_slots(config)), 6 + 4, 32, 32
    assert counted["stored"] == counted["trained"] == adapters * (2 * (d + r) + d + r) + 4**3


def test_widths_that_n_does_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match="n=4 must divide rank=6"):
        attach_method("compacter", "bart", "ffn.bottleneck=6")
    with pytest.raises(UserError, match="n=5 must divide the width 32 of x"):
        attach_method("compacter", "bart", "ffn.form.n=5", "ffn.bottleneck=10")


def test_shared_rules_have_one_initialisation() -> None:
    with pytest.raises(UserError, match=r"rule_std=1, but the rules shared .* rule_std=0\.01"):
        attach_method("compacter", "bart", "ffn.form.rule_std=1.0")
    attach_method("compacter", "bart", "ffn.form.rule_std=1.0", "ffn.form.shared_rules=false")
    config = configured("task=xsum", "method=compacter", "scale=mini", "ffn.form.rule_std=1.0")
    attach(backbone("bart"), build_slots(config, inference=True))  # the stored rules are loaded


@pytest.mark.parametrize("family", ["bart", "roberta"])
def test_a_parallel_hypercomplex_adapter_widens_the_feed_forward(family: str) -> None:
    overrides = ("form@ffn=hypercomplex", "ffn.bottleneck=8", "head=frozen")
    model, _ = attach_method("parallel_ffn", family, *overrides)
    model = model.double()
    with torch.no_grad():
        for _, delta in find_deltas(model):
            for parameter in delta.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        torch.testing.assert_close(
            fold(model)(**batch(family)).logits, model(**batch(family)).logits, rtol=0, atol=1e-12
        )


def test_keywords_are_validated() -> None:
    with pytest.raises(UserError, match=r"attn\.form\.n=0"):
        configured("task=sst2", "method=compacter", "attn.form.n=0")
