"""The hooks of deltas: with other hooks, across processes, after a change of the attention."""

import copy
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from named_deltas import attach_perturbed, logits
from tiny import SEQ2SEQ, backbone, batch
from torch.utils.hooks import RemovableHandle

import unipeft
from unipeft_run.errors import UserError

SUPPORT = Path(__file__).parents[1] / "support"
CHECK = """if True:
    import sys
    import torch
    model, inputs, expected = torch.load(sys.argv[1], weights_only=False)
    for module in model.modules():  # these must replace none of the loaded hooks
        if module._forward_hooks:
            module.register_forward_hook(lambda *args: None)
        if module._forward_pre_hooks:
            module.register_forward_pre_hook(lambda *args: None)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, expected)"""


def prefixed(family: str) -> tuple[Any, torch.Tensor]:
    """Return a model with a perturbed prefix, and its logits."""
    model = backbone(family)
    attach_perturbed(model, "prefix", bottleneck=4)
    return model, logits(model, family)


def count_hooks(model: Any) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    names = [*kinds, *(f"{kind}_with_kwargs" for kind in kinds)]
    return sum(len(vars(module)[name]) for module in model.modules() for name in names)


@pytest.mark.parametrize("family", ["bart", "roberta"])
def test_a_prefix_survives_another_attention_implementation(family: str) -> None:
    model, expected = prefixed(family)
    for core in ("eager", "sdpa"):
        model.set_attn_implementation(core)
        torch.testing.assert_close(logits(model, family), expected, rtol=1e-4, atol=1e-4)
    unipeft.detach(model)
    assert model.config._attn_implementation == "sdpa"


def test_a_prompt_survives_another_attention_implementation() -> None:
    model = backbone("bart")
    attach_perturbed(model, "prompt", bottleneck=4)
    expected = logits(model, "bart")
    model.set_attn_implementation("sdpa")
    assert torch.equal(logits(model, "bart"), expected)


def test_an_implementation_that_would_lose_the_prefix_is_refused() -> None:
    model, _ = prefixed("roberta")
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(UserError, match="flash_attention_2; choose sdpa or eager"):
        logits(model, "roberta")


def test_a_layer_called_alone_loses_no_prefix() -> None:
    model, _ = prefixed("roberta")
    model.set_attn_implementation("eager")
    layer = model.get_submodule("roberta.encoder.layer.0")
    with pytest.raises(UserError, match="eager would ignore the delta"):
        layer(torch.zeros(1, 3, model.config.hidden_size))


def test_models_that_share_a_configuration_keep_their_prefixes() -> None:
    config = transformers.BartConfig(**SEQ2SEQ)
    models = [transformers.BartForConditionalGeneration(config).eval() for _ in range(2)]
    for model in models:
        attach_perturbed(model, "prefix", bottleneck=4)
    expected = logits(models[1], "bart")
    unipeft.activate(models[0], None)
    assert torch.equal(logits(models[1], "bart"), expected)


@pytest.mark.slow
def test_a_new_hook_replaces_none_of_a_loaded_model(tmp_path: Path) -> None:
    model = backbone("bart")
    attach_perturbed(model, "mam", bottleneck=4)
    torch.save((model, batch("bart"), logits(model, "bart")), tmp_path / "model.pt")
    command = [sys.executable, "-c", CHECK, str(tmp_path / "model.pt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("method", ["pfeiffer", "mam"])
def test_a_loaded_model_reserves_the_ids_of_its_hooks(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = backbone("bart")
    attach_perturbed(model, method, bottleneck=4)
    stored = io.BytesIO()
    torch.save(model, stored)
    monkeypatch.setattr(RemovableHandle, "next_id", 0)  # as in a new process
    stored.seek(0)
    loaded = torch.load(stored, weights_only=False)
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    taken = {key for m in loaded.modules() for kind in kinds for key in vars(m)[kind]}
    assert taken and RemovableHandle.next_id > max(taken)


def test_switching_and_detaching_leave_no_hooks() -> None:
    model = backbone("bart")
    before = count_hooks(model)
    unipeft.attach(model, "mam", name="a", bottleneck=4)
    attached = count_hooks(model)
    for name in (None, "a", None, "a"):
        unipeft.activate(model, name)
    assert count_hooks(model) == attached
    twin = copy.deepcopy(model)
    unipeft.detach(twin)
    assert count_hooks(twin) == before
    assert count_hooks(model) == attached


def hidden_states(model: Any) -> list[torch.Tensor]:
    with torch.no_grad():
        found = model(**batch("mbart"), output_hidden_states=True)
    return [*found.encoder_hidden_states, *found.decoder_hidden_states]


def test_hidden_states_contain_the_delta_if_they_were_used_before() -> None:
    states = []
    for used_before in (False, True):
        model = backbone("mbart")
        if used_before:
            hidden_states(model)
        attach_perturbed(model, "pfeiffer", bottleneck=4)
        states.append(hidden_states(model))
        with unipeft.disabled(model):
            pass
        states.append(hidden_states(model))
    for other in states[1:]:
        assert all(map(torch.equal, states[0], other))


def test_hooks_of_the_user_keep_their_order_after_those_of_the_delta() -> None:
    model, calls = backbone("roberta"), []
    layer = model.get_submodule("roberta.encoder.layer.0.output.dense")
    for name in "ab":
        layer.register_forward_hook(lambda *_, name=name: calls.append(name))
    unipeft.attach(model, "adapter_ffn", bottleneck=4)
    logits(model, "roberta")
    assert calls == ["a", "b"]
