"""Methods of the PEFT library: modules, stored tensors, counts, merging, and PEFT's own loading."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from sampling import sampled
from tuners import METHODS, attached, backbone, inputs_of, train

from unipeft_run.deltas.attach import detach
from unipeft_run.deltas.delta_file import load_delta, save_delta, tabulate_parameters
from unipeft_run.deltas.fold import fold
from unipeft_run.errors import UserError
from unipeft_run.interop.peft import export_peft
from unipeft_run.tuners.adapter import find_adapter

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings(  # of the library, in its own code
    "ignore::UserWarning:peft", "ignore:Sparse invariant", "ignore:.*is_gradient_checkpointing"
)

CLASSIFIER = ("classifier.*",)
FAMILIES = ("bart", "bert", "gpt2", "llama", "t5", "vit")
SAMPLE = ("peft/lora", "peft/dora", "peft/vera", "peft/ia3", "peft/adalora", "peft/ln_tuning")
LINEAR_ONLY = ("peft/oft", "peft/hra")  # not for the merged projection of GPT-2
NOT_MERGED = ("peft/lily",)


ALL = [
    method if method in SAMPLE else pytest.param(method, marks=pytest.mark.slow)
    for method in METHODS
]


@torch.no_grad()
def logits(model: Any, family: str = "roberta") -> torch.Tensor:
    return model(**inputs_of(family)).logits


def trained(family: str, method: str) -> Any:
    model = attached(family, method, CLASSIFIER if family in ("roberta", "bert", "vit") else ())
    train(model, inputs_of(family))
    return model


@pytest.mark.parametrize("method", ALL)
def test_what_is_stored_restores_the_trained_model(method: str, tmp_path: Path) -> None:
    model = trained("roberta", method)
    save_delta(model, tmp_path, {})
    torch.manual_seed(3)  # of a run; the library draws what it does not store from its own seeds
    other = attached("roberta", method, CLASSIFIER)
    assert not torch.equal(logits(other), logits(model))
    load_delta(other, tmp_path)
    assert torch.equal(logits(other), logits(model))


@pytest.mark.parametrize("method", ALL)
def test_everything_that_trains_is_stored_and_counted(method: str) -> None:
    model = attached("roberta", method, CLASSIFIER)
    adapter = find_adapter(model)
    assert adapter is not None
    stored = {tensor.data_ptr() for tensor in adapter.tensors().values()}
    own = {id(parameter) for _, parameter in adapter.unfrozen_parameters()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    assert all(p.data_ptr() in stored for p in parameters if id(p) not in own)
    table = tabulate_parameters(model, adapter.backbone)
    assert table["trained"] == sum(p.numel() for p in parameters)
    assert table["backbone"] == sum(p.numel() for p in backbone("roberta").parameters())
    head = sum(p.numel() for _, p in adapter.unfrozen_parameters())
    assert table["stored"] == sum(t.numel() for t in adapter.tensors().values()) + head


@pytest.mark.parametrize("method", ALL)
def test_peft_loads_an_export_with_equal_logits(method: str, tmp_path: Path) -> None:
    model = trained("roberta", method)
    export_peft(model, tmp_path / "out", "somewhere")
    plain = backbone("roberta")
    torch.nn.init.normal_(plain.classifier.out_proj.weight)  # replaced by the export's
    loaded = peft.PeftModel.from_pretrained(plain, tmp_path / "out").eval()
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ALL)
def test_a_merged_model_has_equal_logits_and_the_names_of_the_backbone(method: str) -> None:
    model = trained("roberta", method)
    if method in NOT_MERGED:
        with pytest.raises(UserError, match=r"peft\.type=LILY cannot be merged"):
            fold(model)
        return
    merged = fold(model)
    torch.testing.assert_close(logits(merged), logits(model), rtol=0, atol=1e-5)
    assert merged.state_dict().keys() == backbone("roberta").state_dict().keys()
    merged.save_pretrained  # noqa: B018, no longer refused
    with pytest.raises(UserError, match="save_pretrained would lose"):
        model.save_pretrained("nowhere")


@pytest.mark.parametrize(
    ("method", "family"), sampled(product([*SAMPLE, *LINEAR_ONLY], FAMILIES), 2)
)
def test_a_method_acts_in_every_family(family: str, method: str, tmp_path: Path) -> None:
    if family == "gpt2" and method in LINEAR_ONLY:
        with pytest.raises(
            UserError, match=r"peft.type=.*: rejected by the PEFT library: .*Conv1D"
        ):
            attached(family, method)
        return
    plain = logits(backbone(family), family)
    model = trained(family, method)
    assert not torch.equal(logits(model, family), plain)
    export_peft(model, tmp_path / "out")
    loaded = peft.PeftModel.from_pretrained(backbone(family), tmp_path / "out").eval()
    torch.testing.assert_close(logits(loaded, family), logits(model, family), rtol=0, atol=1e-5)
    detach(model)
    assert find_adapter(model) is None
    assert model.state_dict().keys() == backbone(family).state_dict().keys()
