"""UniPELT's gates equal their equations in float64, in training and while generating."""

from typing import Any

import pytest
import torch
import transformers
from attached_models import TASKS, attach_method, perturbed_model
from beam_search_2021 import generate_2021
from tiny import batch
from tiny_config import configured
from tiny_generation import draw, peaked_model, without_padding
from torch import nn
from torch.nn import functional as F

from unipeft_run import generate
from unipeft_run.config.messages import Illegal
from unipeft_run.deltas.attach import find_deltas
from unipeft_run.deltas.forms.memory import Memory
from unipeft_run.deltas.gates import Gate, GatedMemory, InputGate

PER = ("example", "position")


def gated_model(family: str, per: str, method: str = "unipelt", *overrides: str) -> Any:
    model = perturbed_model(family, method, "eager", *overrides).double()
    for gate in (module for module in model.modules() if isinstance(module, Gate)):
        gate.per = per
        nn.init.normal_(gate.weight, std=0.5)
    return model


@pytest.mark.parametrize("family", TASKS)
@pytest.mark.parametrize("per", PER)
def test_adapters_and_lora_equal_the_literal_equation(family: str, per: str) -> None:
    model = gated_model(family, per)
    seen: list[tuple[Any, ...]] = []
    for _, delta in find_deltas(model):
        if isinstance(delta.composition, InputGate):
            delta.composition.register_forward_hook(
                lambda m, args, kwargs, out, d=delta: seen.append((d, *args, kwargs["u"], out)),
                with_kwargs=True,
            )
    with torch.no_grad():
        model(**batch(family))
        for delta, h, dh, u, out in seen:
            linear = delta.composition.gate
            gate = torch.sigmoid(F.linear(u, linear.weight, linear.bias))
            assert gate.shape == (*u.shape[:2], 1)
            expected = h + (gate.mean(1, keepdim=True) if per == "example" else gate) * dh
            torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
            torch.testing.assert_close(dh, delta.form(u), rtol=0, atol=0)
    layers = {"bart": (4, 6), "mbart": (4, 6), "roberta": (2, 2)}[family]
    assert len(seen) == layers[0] + 2 * layers[1]


def literal_heads(delta: Any, x: torch.Tensor, q: torch.Tensor, kv: Any, mask: Any) -> Any:
    """Compute softmax([q (g P_k)^T; q K^T + mask]) [g P_v; V] query by query."""
    gate = torch.sigmoid(F.linear(x, delta.composition.gate.weight, delta.composition.gate.bias))
    if delta.composition.gate.per == "example":
        gate = gate.mean(1, keepdim=True).expand_as(gate)
    rows = []
    for t in range(q.size(2)):
        g = gate[:, t, None, None]  # [B, 1, 1, 1]
        keys, values = (
            torch.cat([g * p, own], dim=2) for p, own in zip(delta.form.heads(), kv, strict=True)
        )
        logits = q[:, :, t : t + 1] @ keys.transpose(-1, -2) * q.size(-1) ** -0.5
        if mask is not None:
            row = mask[:, :, min(t, mask.size(2) - 1)][:, :, None]
            seen = F.pad(row, (keys.size(2) - row.size(-1), 0), value=True)
            logits = logits.masked_fill(~seen, -torch.inf)
        rows.append(logits.softmax(-1) @ values)
    return torch.cat(rows, dim=2).transpose(1, 2)


@pytest.mark.parametrize("family", TASKS)
@pytest.mark.parametrize("per", PER)
def test_the_prefix_equals_the_literal_equation(
    family: str, per: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls = gated_model(family, per), []
    interface = transformers.AttentionInterface._global_mapping
    attend = interface["unipeft_eager"]

    def recorded(module: Any, q: Any, k: Any, v: Any, mask: Any, **kwargs: Any) -> Any:
        x = module.delta_attn.x
        out = attend(module, q, k, v, mask, **kwargs)
        calls.append((out[0], literal_heads(module.delta_attn, x, q, (k, v), mask)))
        return out

    monkeypatch.setitem(interface, "unipeft_eager", recorded)
    with torch.no_grad():
        model(**batch(family))
    assert len(calls) == {"bart": 6, "mbart": 6, "roberta": 2}[family]
    for found, expected in calls:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("per", PER)
def test_any_memory_can_be_gated(per: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without concatenation, the gate acts on the query and the change: the same function."""
    model = gated_model("roberta", per)
    with torch.no_grad():
        expected = model(**batch("roberta")).logits
        monkeypatch.setattr(Memory, "is_attention", False)
        found = model(**batch("roberta")).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", TASKS)
@pytest.mark.parametrize("per", PER)
def test_a_multi_head_adapter_is_gated_by_the_input(family: str, per: str) -> None:
    overrides = ("composition@attn=input_gate", f"attn.composition.per={per}", "head=frozen")
    model, _ = attach_method("mh_parallel", family, *overrides)
    model(**batch(family)).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    gates = [m for m in model.modules() if isinstance(m, InputGate)]
    assert gates and all(gate.gate.per == per for gate in gates)


@pytest.mark.parametrize("family", ["bart", "mbart"])
@pytest.mark.parametrize("core", ["sdpa", "eager"])
def test_gates_per_example_are_recomputed_at_every_step(family: str, core: str) -> None:
    """Beam search with means over all positions equals a search without a cache."""
    model = peaked_model(family, "unipelt", core=core)
    gates = [module for module in model.modules() if isinstance(module, Gate)]
    for gate in gates:
        gate.per = "example"
    for seed in range(3):
        sources, decoding = draw(seed, family)
        found = generate(model, **sources, decoding=decoding)
        assert without_padding(found) == generate_2021(model, **sources, **decoding)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ("composition@ffn=gated_memory", "use composition input_gate"),
        ("composition@matrix=gated_memory", "use composition input_gate"),
        ("insertion@matrix=sequential", "weight matrix"),
        ("matrix.representation.sites=[attn.output]", "belongs to slot attn"),
        ("matrix.representation.sites=[attn.queries]", "did you mean attn.query"),
    ],
)
def test_illegal_points_state_the_reason(overrides: str, reason: str) -> None:
    error = Illegal if "did you mean" not in reason else Exception
    with pytest.raises(error, match=reason):
        configured("task=sst2", "method=unipelt", "scale=mini", *overrides.split())


def test_a_gated_prefix_is_a_gate_of_eq_7() -> None:
    model = perturbed_model("roberta", "unipelt")
    kinds = {delta.site.representation: type(delta.composition) for _, delta in find_deltas(model)}
    assert kinds["attn.heads"] is GatedMemory
    assert kinds["ffn.block"] is kinds["attn.query"] is kinds["attn.value"] is InputGate
