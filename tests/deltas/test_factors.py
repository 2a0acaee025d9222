"""(IA)3 equals its equation in float64, and folds into the rows and columns of the weights."""

from itertools import product
from typing import Any

import pytest
import torch
from attached_models import TASKS, attach_method
from sampling import sampled
from tiny import backbone, batch
from tiny_config import configured
from torch import nn

from unipeft_run.config.messages import Illegal
from unipeft_run.deltas.attach import attach, find_deltas
from unipeft_run.deltas.compositions import Rescale
from unipeft_run.deltas.fold import fold
from unipeft_run.deltas.forms.factors import Factors
from unipeft_run.deltas.slots import build_slots
from unipeft_run.errors import UserError

# family -> the modules whose output is rescaled, and the one whose input is
RESCALED = {
    "bart": (("k_proj", "v_proj"), "fc2"),
    "mbart": (("k_proj", "v_proj"), "fc2"),
    "roberta": (("self.key", "self.value"), "output.dense"),
}


def trained(family: str, method: str = "ia3", *overrides: str) -> Any:
    config = configured(f"task={TASKS[family]}", f"method={method}", "scale=mini", *overrides)
    model = backbone(family).double()
    attach(model, build_slots(config))
    torch.manual_seed(2)
    with torch.no_grad():
        for _, delta in find_deltas(model):
            for parameter in delta.parameters():
                parameter.add_(0.4 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("family", TASKS)
def test_it_starts_at_the_backbone(family: str) -> None:
    model, _ = attach_method("ia3", family, "head=frozen")
    with torch.no_grad():
        expected = backbone(family)(**batch(family)).logits
        assert torch.equal(model(**batch(family)).logits, expected)


@pytest.mark.parametrize("family", TASKS)
def test_it_equals_the_literal_equation(family: str) -> None:
    model, literal = trained(family), backbone(family).double()
    outputs, hidden = RESCALED[family]
    factors = {path.rpartition(".")[0]: delta.form.factors for path, delta in find_deltas(model)}
    assert all(isinstance(delta.form, Factors) for _, delta in find_deltas(model))
    for name, module in literal.named_modules():
        if name not in factors:
            continue
        assert isinstance(module, nn.Linear)
        if name.endswith(hidden):  # the input of the second matrix, after the activation
            module.register_forward_pre_hook(lambda m, args, n=name: (args[0] * factors[n],))
        else:
            assert name.endswith(outputs)
            module.register_forward_hook(lambda m, args, h, n=name: h * factors[n])
    with torch.no_grad():
        torch.testing.assert_close(
            model(**batch(family)).logits, literal(**batch(family)).logits, rtol=0, atol=1e-12
        )


RESCALED_BY = [
    (),
    ("representation@ffn=ffn_up",),
    ("representation@ffn=ffn_up_down",),
    ("representation@ffn=ffn",),
    ("representation@attn=context",),
    ("representation@attn=attn_output",),
]


@pytest.mark.parametrize(("family", "overrides"), sampled(product(TASKS, RESCALED_BY), 5))
def test_it_folds_into_rows_and_columns(family: str, overrides: tuple[str, ...]) -> None:
    model = trained(family, "ia3", *overrides)
    folded = fold(model)
    assert not list(find_deltas(folded))
    with torch.no_grad():
        torch.testing.assert_close(
            folded(**batch(family)).logits, model(**batch(family)).logits, rtol=0, atol=1e-12
        )


MATRIX_LORA = (
    "form@matrix=low_rank",
    "insertion@matrix=parallel",
    "representation@matrix=ffn_up_down",
    "composition@matrix=add",
    "matrix.bottleneck=3",
)


@pytest.mark.parametrize("family", TASKS)
def test_a_matrix_reads_its_rescaled_input(family: str) -> None:
    """LoRA beside the second matrix reads l * h, so that both fold into one weight."""
    model = trained(family, "ia3", *MATRIX_LORA)
    folded = fold(model)
    with torch.no_grad():
        torch.testing.assert_close(
            folded(**batch(family)).logits, model(**batch(family)).logits, rtol=0, atol=1e-12
        )
        for _, delta in find_deltas(model):
            if isinstance(delta.composition, Rescale):
                delta.form.factors.fill_(1)
        assert not torch.allclose(folded(**batch(family)).logits, model(**batch(family)).logits)


def test_a_rescaled_sum_cannot_be_folded() -> None:
    overrides = ("representation@ffn=ffn_block", "insertion@ffn=post_norm")
    with pytest.raises(UserError, match="it rescales a sum"):
        fold(trained("roberta", "ia3", *overrides))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("composition@ffn=add",), "form factors and composition rescale need each other"),
        (("form@ffn=bottleneck", "ffn.bottleneck=4"), "rescale need each other"),
        (("representation@attn=heads",), "not a head"),
        ((*MATRIX_LORA, "representation@matrix=key_value"), "slots attn and matrix both change"),
        (("representation@ffn=key_value",), "belongs to slot attn"),
    ],
)
def test_illegal_points_state_the_reason(overrides: tuple[str, ...], reason: str) -> None:
    with pytest.raises(Illegal, match=reason):
        configured("task=sst2", "method=ia3", "scale=mini", *overrides)


@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_a_linear_change_of_the_hidden_units_folds(activation: str) -> None:
    overrides = ("representation@ffn=ffn_hidden", f"ffn.form.activation={activation}")
    model = trained("bart", "parallel_ffn", *overrides)
    if activation == "relu":
        with pytest.raises(UserError, match="its activation comes before the weight"):
            fold(model)
        return
    with torch.no_grad():
        torch.testing.assert_close(
            fold(model)(**batch("bart")).logits, model(**batch("bart")).logits, rtol=0, atol=1e-12
        )
