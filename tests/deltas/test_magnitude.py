"""DoRA and VeRA equal their equations and PEFT in float64, fold, and are stored completely."""

from pathlib import Path
from typing import Any

import pytest
import torch
from attached_models import TASKS
from tiny import backbone, batch
from tiny_config import configured
from torch.nn import functional as F

from unipeft_run.config.messages import Illegal
from unipeft_run.deltas.attach import attach, find_deltas
from unipeft_run.deltas.build import delta_recipe
from unipeft_run.deltas.delta_file import inference_tensors, load_delta, save_delta
from unipeft_run.deltas.fold import fold
from unipeft_run.deltas.slots import build_slots

METHODS = ("dora", "vera")


def trained(family: str, method: str, *overrides: str, noise: float = 0.3) -> Any:
    words = (f"task={TASKS[family]}", f"method={method}", "scale=mini", "head=frozen")
    config = configured(*words, "attn.bottleneck=3", *overrides)
    model = backbone(family).double()
    attach(model, build_slots(config))
    torch.manual_seed(3)
    with torch.no_grad():
        for _, delta in find_deltas(model):
            for parameter in delta.parameters():
                if parameter.requires_grad:
                    parameter.add_(noise * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def logits(model: Any, family: str) -> torch.Tensor:
    found: torch.Tensor = model(**batch(family)).logits
    return found


@pytest.mark.parametrize("family", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_it_starts_at_the_backbone(method: str, family: str) -> None:
    plain = logits(backbone(family).double(), family)
    torch.testing.assert_close(logits(trained(family, method, noise=0), family), plain)


@pytest.mark.parametrize("family", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_it_equals_the_literal_equation(method: str, family: str) -> None:
    model, literal = trained(family, method), backbone(family).double()
    for path, delta in find_deltas(model):
        form, linear = delta.form, literal.get_submodule(path.rpartition(".")[0])
        weight = linear.weight.data
        if method == "dora":
            weight = weight + delta.composition.scale * form.up.weight @ form.down.weight
            norms = weight.square().sum(1, keepdim=True).sqrt()
            weight = delta.composition.magnitude[:, None] * weight / norms
        else:
            a, d = form.down.matrix.weight, form.down.factors
            b, outer = form.up.matrix.weight, form.up.factors
            weight = weight + outer.diag() @ b @ d.diag() @ a
        linear.weight.data = weight.data
    torch.testing.assert_close(logits(model, family), logits(literal, family), rtol=0, atol=1e-12)


def _peft_model(method: str) -> Any:
    peft = pytest.importorskip("peft")
    keywords = {"r": 3, "target_modules": ["query", "value"]}
    if method == "dora":
        config: Any = peft.LoraConfig(**keywords, lora_alpha=6, use_dora=True)
    else:
        config = peft.VeraConfig(**keywords, d_initial=0.1)
    inner = peft.get_peft_model(backbone("roberta").double(), config).double().eval()
    with torch.no_grad():
        for parameter in inner.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return inner


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's
@pytest.mark.parametrize("method", METHODS)
def test_it_equals_peft_with_its_gradients(method: str) -> None:
    theirs = _peft_model(method)
    ours = trained("roberta", method, "attn.form.input_dropout=0", noise=0)
    pairs = []
    for path, delta in find_deltas(ours):
        module: Any = theirs.base_model.model.get_submodule(path.rpartition(".")[0])
        form: Any = delta.form
        if method == "dora":
            pairs += [(form.down.weight, module.lora_A["default"].weight)]
            pairs += [(form.up.weight, module.lora_B["default"].weight)]
            norms = module.lora_magnitude_vector["default"].weight
            pairs += [(delta.composition.magnitude, norms)]
        else:
            form.down.matrix.weight.data = module.vera_A["default"].double()
            form.up.matrix.weight.data = module.vera_B["default"].double()
            pairs += [(form.down.factors, module.vera_lambda_d["default"])]
            pairs += [(form.up.factors, module.vera_lambda_b["default"])]
    for own, their in pairs:
        own.data.copy_(their.data)
    losses = [model(**batch("roberta")).loss for model in (ours, theirs)]
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=1e-12)
    for loss in losses:
        loss.backward()
    for own, their in pairs:
        torch.testing.assert_close(own.grad, their.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_it_folds_into_the_weights(method: str, family: str) -> None:
    model = trained(family, method)
    folded = fold(model)
    assert not list(find_deltas(folded))
    torch.testing.assert_close(logits(folded, family), logits(model, family), rtol=0, atol=1e-12)


MATRIX = ("insertion@matrix=parallel", "representation@matrix=ffn_up_down", "matrix.bottleneck=3")
AROUND = (  # what reads or rescales the weight that slot matrix changes
    ("parallel_ffn", "insertion@ffn=sequential", "ffn.form.activation=identity"),
    ("ia3", "representation@ffn=ffn"),
    ("ia3",),
)


@pytest.mark.parametrize("around", AROUND, ids=lambda words: words[0])
@pytest.mark.parametrize("form", ["low_rank", "low_rank_shared"])
@pytest.mark.parametrize("composition", ["add", "magnitude"])
def test_changes_of_a_weight_fold_before_those_around_it(
    form: str, composition: str, around: tuple[str, ...]
) -> None:
    method, *overrides = around
    own = (f"form@matrix={form}", f"composition@matrix={composition}", *MATRIX)
    scale = ("matrix.scale=2",) if composition == "magnitude" else ()
    config = configured("task=xsum", f"method={method}", "scale=mini", *overrides, *own, *scale)
    model = backbone("bart").double()
    attach(model, build_slots(config))
    with torch.no_grad():
        for _, delta in find_deltas(model):
            for parameter in delta.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    found, expected = logits(fold(model), "bart"), logits(model, "bart")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["dora", "vera", "compacter", "ia3", "unipelt"])
def test_what_is_stored_rebuilds_the_change(method: str, tmp_path: Path) -> None:
    config = configured("task=xsum", f"method={method}", "scale=mini")
    model = backbone("bart")
    attach(model, build_slots(config))
    with torch.no_grad():
        for _, delta in find_deltas(model):
            for parameter in delta.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    save_delta(model, tmp_path, delta_recipe(config))
    twin = backbone("bart")
    attach(twin, build_slots(config, inference=True))
    load_delta(twin, tmp_path)
    torch.testing.assert_close(logits(twin, "bart"), logits(model, "bart"))


def test_random_matrices_are_shared_by_width_and_stored_once() -> None:
    overrides = ("representation@attn=query_value", "form@ffn=low_rank_shared")
    axes = ("insertion@ffn=parallel", "representation@ffn=ffn_up_down", "composition@ffn=add")
    model = trained("bart", "vera", *overrides, *axes, "ffn.bottleneck=3")
    matrices = [name for name, _ in inference_tensors(model) if name.endswith("matrix.weight")]
    assert len(matrices) == 4  # A for inputs of 32 and of 64, B for outputs of 32 and of 64
    assert not any(p.requires_grad for n, p in model.named_parameters() if "matrix.weight" in n)


def test_no_gradient_passes_through_the_norm() -> None:
    model = trained("roberta", "dora", "attn.form.input_dropout=0")
    (_, delta), *_ = find_deltas(model)
    form: Any = delta.form
    module = model.get_submodule(delta.site.write.path)
    x = torch.randn(2, 3, 32, dtype=torch.float64)
    h = F.linear(x, module.weight, module.bias)
    norm = torch.linalg.vector_norm(module.weight + 2 * form.up.weight @ form.down.weight, dim=1)
    direction = F.linear(x, module.weight + 2 * form.up.weight @ form.down.weight)
    expected = delta.composition.magnitude / norm.detach() * direction + module.bias
    wanted = torch.autograd.grad(expected.square().sum(), form.up.weight)
    found = torch.autograd.grad(delta(x, h, module).square().sum(), form.up.weight)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ("form@attn=bottleneck", "needs a linear form without biases"),
        ("attn.form.bias=true", "needs a linear form without biases"),
        ("attn.form.activation=relu", "needs a linear form without biases"),
        ("representation@attn=context", r"rows of a weight matrix \(this is attn.context\)"),
        ("form@attn=factors", "form factors and composition rescale need each other"),
    ],
)
def test_illegal_points_state_the_reason(overrides: str, reason: str) -> None:
    with pytest.raises(Illegal, match=reason):
        configured("task=sst2", "method=dora", "scale=mini", *overrides.split())
