"""Logits, loss, gradients and greedy ids recorded from `adapters` 1.3, in float64."""

from typing import Any

import golden_peers
import pytest
import torch
from golden_cases import is_close

from unipeft_run.interop.adapters import from_adapters

CASES = golden_peers.case_names("cases")
OUTPUTS = ("logits", "logits_per_text", "text_embeds", "image_embeds")


def load(case: str) -> tuple[dict[str, Any], dict[str, Any], Any, dict[str, Any]]:
    """Return the description, the tensors, and the configuration and state of a case."""
    meta, tensors = golden_peers.load(f"cases/{case}")
    config, state, others = golden_peers.backbone(meta["family"])
    state |= golden_peers.inputs_of(tensors, "state")
    return meta, {**others, **tensors}, config, state


def build(meta: dict[str, Any], config: Any, state: dict[str, Any]) -> Any:
    model = from_adapters(meta["options"], config, state)
    golden_peers.widen_rotary(model)
    return model


def forward(model: Any, meta: dict[str, Any], tensors: dict[str, Any]) -> Any:
    loss = {"return_loss": True} if meta["family"] == "clip" else {}
    with golden_peers.float64_islands():
        return model(**golden_peers.inputs_of(tensors), **loss)


@pytest.mark.parametrize("case", CASES)
def test_outputs_loss_gradients_and_counts(case: str) -> None:
    meta, tensors, config, state = load(case)
    model = build(meta, config, state)
    output = forward(model, meta, tensors)
    for name in OUTPUTS:
        if f"output/{name}" in tensors:
            assert is_close(output[name], tensors[f"output/{name}"]), name
    assert float(output.loss.detach()) == pytest.approx(meta["loss"], rel=1e-12)
    output.loss.backward()
    # the same model with the recorded gradients in place of the tensors
    expected = build(meta, config, {**state, **golden_peers.inputs_of(tensors, "grad")})
    received = 0
    for (name, ours), (_, theirs) in zip(
        model.named_parameters(), expected.named_parameters(), strict=True
    ):
        if ours.requires_grad:
            assert ours.grad is not None, name
            assert (ours.grad - theirs).abs().max() <= 1e-9 * max(1, theirs.abs().max()), name
            received += ours.numel()
    assert received == meta["counts"]["receiving_gradient"]


@pytest.mark.parametrize("case", [c for c in CASES if c.startswith(("llama", "gpt2", "t5"))])
def test_greedy_ids(case: str) -> None:
    meta, tensors, config, state = load(case)
    if "output/generate_greedy" not in tensors:
        pytest.skip("no ids are recorded")
    model = build(meta, config, state)
    recorded = tensors["output/generate_greedy"]
    inputs = golden_peers.inputs_of(tensors, "gen_input")
    with golden_peers.float64_islands(), torch.no_grad():
        if meta["family"].startswith("t5"):
            ids = model.generate(**inputs, max_new_tokens=8, do_sample=False, use_cache=False)
        else:
            ids = continue_greedily(model, **inputs)
    assert ids.tolist() == recorded.tolist()


def continue_greedily(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """Append 8 tokens, with the positions of transformers 4: 1 for padding.

    UniPELT's gates average over padding too, so its position matters.
    """
    done = torch.zeros(len(input_ids), dtype=torch.bool)
    for _ in range(8):
        positions = (attention_mask.cumsum(-1) - 1).masked_fill(attention_mask == 0, 1)
        logits = model(input_ids, attention_mask=attention_mask, position_ids=positions).logits
        token = torch.where(done, 0, logits[:, -1].argmax(-1))
        done |= token == 2
        input_ids = torch.cat([input_ids, token[:, None]], dim=1)
        attention_mask = torch.cat([attention_mask, torch.ones_like(token[:, None])], dim=1)
    return input_ids


def prompt_case(family: str) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    options = {"architecture": "prompt_tuning", "prompt_length": 5}
    config, state, _ = golden_peers.backbone(family)
    name = f"{family}.prompt_tuning.prompt_tunings.a.prompt_embedding.weight"
    return options, config, {**state, name: torch.randn(5, 32, dtype=torch.float64)}


def test_a_prompt_precedes_the_embeddings_and_the_classifier_reads_it() -> None:
    options, config, state = prompt_case("vit")
    model: Any = from_adapters(options, config, state)
    _, _, others = golden_peers.backbone("vit")
    with golden_peers.float64_islands():
        pixels = others["input/pixel_values"]
        logits = model(pixel_values=pixels).logits
        plain: Any = model.vit
        embedded = plain.embeddings(pixels)
        assert embedded.shape[1] == 5 + 5  # with the hook: prompt, [CLS] and four patches
        prompt = state["vit.prompt_tuning.prompt_tunings.a.prompt_embedding.weight"]
        assert torch.equal(embedded[0, :5], prompt)
        hidden = embedded
        for layer in plain.layers:
            hidden = layer(hidden, None)
        expected = model.classifier(plain.layernorm(hidden)[:, 0])
    assert is_close(logits, expected)


def test_a_prompt_is_visible_whatever_the_padding() -> None:
    options, config, state = prompt_case("bert")
    model: Any = from_adapters(options, config, state)
    _, _, others = golden_peers.backbone("bert")
    inputs = golden_peers.inputs_of(others)
    inputs.pop("labels")
    length = int(inputs["attention_mask"][2].sum())
    with golden_peers.float64_islands():
        padded = model(**inputs).logits[2]
        alone = model(**{name: tensor[2:3, :length] for name, tensor in inputs.items()}).logits[0]
    assert is_close(padded, alone)


@pytest.mark.parametrize(
    ("case", "options", "sentence"),
    [
        ("bert__seq_bn", {"ln_before": True}, "ln_before=True is not supported"),
        ("bert__seq_bn", {"inv_adapter": "nice"}, "inv_adapter=nice is not supported"),
        ("bert__seq_bn", {"scaling": "channel"}, "scaling='channel' is not supported"),
        ("bert__seq_bn", {"non_linearity": "mish"}, "non_linearity"),
        ("bert__seq_bn", {"reduction_facto": 2}, "reduction_facto.*reduction_factor"),
        ("bert__seq_bn", {"reduction_factor": 8}, r"is \[8, 32\]; .* make it \[4, 32\]"),
        ("bert__seq_bn", {"mh_adapter": True}, "original_ln_before is supported for the output"),
        ("bert__seq_bn", {"architecture": "reft"}, "architecture"),
        ("llama__lora_attn", {"use_dora": True}, "use_dora=True is not supported"),
        ("llama__lora_attn", {"attn_matrices": ["q"]}, "unexpected tensor"),
        ("llama__lora_attn", {"attn_matrices": ["q", "o"]}, "attn_matrices"),
        ("t5__prefix_tuning", {"non_linearity": "relu"}, "non_linearity=relu is not supported"),
        ("t5__prefix_tuning", {"flat": True}, "has no tensor prefix_pool.a.encoder_prefix.contr"),
        ("llama__prefix_tuning", {"architecture": "prompt_tuning"}, "encoder_prefix"),
    ],
)
def test_what_it_cannot_take_is_named(case: str, options: dict[str, Any], sentence: str) -> None:
    meta, _, config, state = load(case)
    with pytest.raises(ValueError, match=sentence):
        from_adapters({**meta["options"], **options}, config, state)


def test_left_out_layers_have_no_adapter() -> None:
    meta, tensors, config, state = load("t5__par_bn_s1")
    left_out = [name for name in state if name.startswith("encoder.block.1.layer.1.adapters")]
    assert left_out
    kept = {name: tensor for name, tensor in state.items() if name not in left_out}
    options = {**meta["options"], "leave_out": [1]}
    without: Any = from_adapters(options, config, kept)
    silent = {name: torch.zeros_like(state[name]) for name in left_out}
    zeroed: Any = from_adapters(meta["options"], config, {**state, **silent})
    inputs = golden_peers.inputs_of(tensors)
    assert is_close(without(**inputs).logits, zeroed(**inputs).logits)
