"""Folding leaves the logits unchanged; a delta that cannot be folded is refused with a reason."""

from typing import Any

import pytest
import tiny_families
import torch
import transformers
from accelerate import Accelerator
from attached_models import TASKS
from named_deltas import attach_perturbed, delta_names, logits, perturb
from tiny import backbone, batch
from tiny_config import configured

import unipeft
import unipeft_run
from unipeft_run.deltas.attach import attach, find_deltas
from unipeft_run.deltas.fold import SplitActivation, fold
from unipeft_run.deltas.slots import build_slots
from unipeft_run.errors import UserError

IN_WEIGHTS = ("lora_attn", "lora_ffn", "bitfit", "full")
PARALLEL_FFN = ("parallel_ffn", "scaled_parallel_ffn")
KEPT = ("prefix", "prefix_nomlp", "mh_parallel")
FOLDED = [(m, f) for f in TASKS for m in (*IN_WEIGHTS, *KEPT, "prefix_lora_ffn")]
FOLDED += [(m, f) for f in ("bart", "roberta") for m in (*PARALLEL_FFN, "mam")]
REFUSED = [(m, f) for f in TASKS for m in ("houlsby", "pfeiffer", "parallel_attn", "prompt")]
REFUSED += [(m, "mbart") for m in (*PARALLEL_FFN, "mam")]


def trained(method: str, family: str, *overrides: str) -> Any:
    """Build a float64 model whose trainable parameters all differ from their initialisation."""
    config = configured(f"task={TASKS[family]}", f"method={method}", "scale=mini", *overrides)
    model = backbone(family).double()
    torch.manual_seed(0)
    attach(model, build_slots(config), config.unfreeze)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def error(model: Any, folded: Any, family: str) -> float:
    return float((folded(**batch(family)).logits - model(**batch(family)).logits).abs().max())


@pytest.mark.parametrize(("method", "family"), FOLDED)
def test_folding_keeps_the_logits(method: str, family: str) -> None:
    model = trained(method, family).train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold(model)
    assert model.training
    assert not folded.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert error(model.eval(), folded, family) <= 1e-12
    left = list(find_deltas(folded))
    assert {delta.site.representation for _, delta in left} <= {"attn.heads"}
    assert bool(left) == any(word in method for word in ("prefix", "mh_", "mam"))
    assert not any(name in path for path in folded.state_dict() for name in ("trunk", "delta_ffn"))
    assert not any(p.requires_grad for p in folded.parameters())
    assert not any(delta.site.shared or delta.site.model_shared for _, delta in left)


@pytest.mark.parametrize(("method", "family"), REFUSED)
def test_a_refusal_states_the_reason(method: str, family: str) -> None:
    with pytest.raises(UserError, match=r"cannot fold delta_\w+ at [\w.]+: .*\(\d+ sites\)"):
        fold(trained(method, family))


def test_mbarts_adapter_before_the_norm_is_refused() -> None:
    with pytest.raises(UserError, match=r"delta_ffn at ffn: .*before a LayerNorm"):
        fold(trained("mam", "mbart"))


@pytest.mark.parametrize("family", TASKS)
def test_a_linear_change_of_attention_spans_more_than_one_weight(family: str) -> None:
    model = trained("lora_attn", family, "representation@attn=attn_output")
    with pytest.raises(UserError, match=r"attn\.output: it spans more than one weight"):
        fold(model)


@pytest.mark.parametrize("family", TASKS)
def test_an_adapter_after_the_norm_folds_in_every_family(family: str) -> None:
    model = trained("mam", family, "representation@ffn=ffn_normed")
    folded = fold(model)
    assert error(model, folded, family) <= 1e-12
    assert {delta.site.representation for _, delta in find_deltas(folded)} == {"attn.heads"}


@pytest.mark.parametrize(
    "overrides",
    [
        ("composition@ffn=learned_scale",),
        ("ffn.form.activation=identity",),
        ("ffn.form.activation=tanh", "ffn.representation.layers=[1]"),
        ("ffn.form.bias=false",),
    ],
)
@pytest.mark.parametrize("family", ["bart", "roberta"])
def test_variants_of_the_parallel_adapter_fold(family: str, overrides: tuple[str, ...]) -> None:
    model = trained("parallel_ffn", family, *overrides)
    assert error(model, fold(model), family) <= 1e-12


@pytest.mark.parametrize("family", TASKS)
@pytest.mark.parametrize(
    "case",
    [
        ("adapter_ffn", "ffn.form.activation=identity"),
        ("adapter_attn", "attn.form.activation=identity", "attn.form.norm=none"),
        ("lora_attn", "attn.form.bias=true"),
    ],
)
def test_every_linear_change_of_a_weight_folds(case: tuple[str, ...], family: str) -> None:
    model = trained(case[0], family, *case[1:])
    folded = fold(model)
    assert error(model, folded, family) <= 1e-12
    assert not list(find_deltas(folded))


@pytest.mark.parametrize("family", ["bart", "mbart"])
def test_a_folded_model_generates_the_same_ids(family: str) -> None:
    model = trained("prefix_lora_ffn", family)
    inputs = {key: batch(family)[key] for key in ("input_ids", "attention_mask")}
    settings: dict[str, Any] = {"num_beams": 3, "max_length": 12, "decoder_start_token_id": 2}
    texts = [m.generate(**inputs, **settings).tolist() for m in (model, fold(model))]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precisions_are_verified_too(dtype: torch.dtype) -> None:
    folded = fold(trained("mam", "bart").to(dtype))
    assert {p.dtype for p in folded.parameters()} == {dtype}


def test_a_model_prepared_for_mixed_precision_folds() -> None:
    model, reference = (trained("lora_attn", "roberta").float() for _ in range(2))
    accelerator = Accelerator(cpu=True)
    accelerator.state._mixed_precision = "bf16"  # this process's state is shared with other tests
    accelerator.native_amp = True
    try:
        model = accelerator.prepare_model(model)
        assert logits(model, "roberta").dtype == torch.float32
        assert not torch.equal(logits(model, "roberta"), logits(reference, "roberta"))
    finally:
        accelerator.state._mixed_precision = "no"
    folded: Any = fold(model)
    assert torch.equal(logits(folded, "roberta"), logits(fold(reference), "roberta"))
    assert not {"forward", "_original_forward"} & vars(folded).keys()


def test_a_wrong_fold_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    split = SplitActivation.forward
    monkeypatch.setattr(SplitActivation, "forward", lambda self, x: 1.001 * split(self, x))
    with pytest.raises(UserError, match="changes the logits"):
        fold(trained("parallel_ffn", "bart"))


def test_a_fold_that_does_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unipeft_run.deltas.fold._fold_deltas", lambda *args: None)
    model = backbone("roberta").bfloat16()
    attach_perturbed(model, "lora_ffn", head="frozen")  # the logits are below the tolerance
    with pytest.raises(UserError, match="keeps 0% of the deltas' effect"):
        fold(model)


def test_the_public_names_are_functions_whatever_was_imported_first() -> None:
    model = backbone("bart")
    assert not unipeft_run.attach(model, {})
    assert unipeft_run.fold(model) is not model
    assert unipeft_run.fold is fold


@pytest.mark.parametrize("method", ["parallel_ffn", "lora_attn", "ia3", "dora", "mam"])
@torch.no_grad()
def test_float32_deltas_fold_into_a_bfloat16_backbone(method: str) -> None:
    model, ids = tiny_families.backbone("gpt2").bfloat16(), torch.arange(5, 12)[None]
    unipeft.attach(model, method)
    for path in delta_names(model):
        model.get_submodule(path).float()
    with unipeft.disabled(model):  # placed again, the deltas are told that the types differ
        plain = model(ids).logits
    perturb(model)
    folded: Any = unipeft.fold(model)
    expected = model(ids).logits
    error, effect = folded(ids).logits - expected, expected - plain
    assert float(error.abs().max()) < 0.1 * float(effect.abs().max())
    assert {p.dtype for n, p in folded.named_parameters() if "delta_" not in n} == {torch.bfloat16}


@pytest.mark.parametrize("kind", ["Llama", "GPT2"])
@pytest.mark.parametrize("pad", [None, 0])
def test_a_decoder_classifier_folds_with_and_without_a_padding_token(
    kind: str, pad: int | None
) -> None:
    settings = {**tiny_families.CONFIGS[kind.lower()], "pad_token_id": pad, "num_labels": 3}
    config = getattr(transformers, f"{kind}Config")(**settings)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    unipeft.attach(model, "lora_attn", bottleneck=2)
    perturb(model)
    folded: Any = unipeft.fold(model)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(folded(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
