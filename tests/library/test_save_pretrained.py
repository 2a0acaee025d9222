"""save_pretrained: refused where it would lose deltas, right where the weights hold everything."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from named_deltas import attach_perturbed, delta_names, logits
from tiny import ENCODER, SEQ2SEQ, backbone
from tiny_config import configured

import unipeft
from unipeft_run.backbones.families import family_of
from unipeft_run.deltas.attach import attach, detach
from unipeft_run.deltas.probe import make_probe
from unipeft_run.deltas.slots import build_slots
from unipeft_run.errors import UserError

LOST = "save_pretrained would lose the deltas"
FAMILIES = ["bart", "roberta"]


def reload(model: Any, folder: Path) -> Any:
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_attached_model_refuses_and_writes_nothing(family: str, tmp_path: Path) -> None:
    model = backbone(family)
    attach_perturbed(model, "mam", bottleneck=4)
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(UserError, match=LOST):
            each.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_backbone_saves(family: str, tmp_path: Path) -> None:
    model = backbone(family)
    expected = logits(model, family)
    attach_perturbed(model, "mam", bottleneck=4)
    with unipeft.disabled(model):
        assert torch.equal(logits(reload(model, tmp_path / "a"), family), expected)
    with pytest.raises(UserError, match=LOST):
        model.save_pretrained(tmp_path / "b")
    unipeft.detach(model)
    assert torch.equal(logits(reload(model, tmp_path / "c"), family), expected)
    loaded = unipeft.load_backbone(str(tmp_path / "c"))  # the family comes from config.json
    assert torch.equal(logits(loaded, family), expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["lora_attn", "bitfit"])
def test_a_folded_model_saves_and_loads(method: str, family: str, tmp_path: Path) -> None:
    model = backbone(family)
    attach_perturbed(model, method)
    folded: Any = unipeft.fold(model)
    assert unipeft.attached(folded) == {} and unipeft.active(model) == [method]
    again = reload(folded, tmp_path)
    assert torch.equal(logits(again, family), logits(folded, family))
    torch.testing.assert_close(logits(again, family), logits(model, family), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "kind",
    [
        "RobertaForTokenClassification",
        "RobertaForQuestionAnswering",
        "RobertaForMultipleChoice",
        "BartForSequenceClassification",
        "BartForQuestionAnswering",
    ],
)
def test_models_with_other_heads_fold(kind: str, tmp_path: Path) -> None:
    cls = getattr(transformers, kind)
    labels = 2 if kind.endswith("QuestionAnswering") else 4
    sizes = {**(ENCODER if kind.startswith("Roberta") else SEQ2SEQ), "num_labels": labels}
    model = cls(cls.config_class(**sizes)).eval()
    attach_perturbed(model, "lora_attn", bottleneck=2)
    folded: Any = unipeft.fold(model)
    batch = make_probe(model, family_of(model.config))
    with torch.no_grad():
        again = reload(folded, tmp_path)(**batch)[0]
        torch.testing.assert_close(again, folded(**batch)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_in_the_weights_saves_without_folding(family: str, tmp_path: Path) -> None:
    model = backbone(family)
    attach_perturbed(model, "bitfit")
    assert torch.equal(logits(reload(model, tmp_path), family), logits(model, family))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "method, message",
    [("prefix", LOST), ("mam", "more hidden units"), ("parallel_ffn", "more hidden units")],
)
def test_a_folded_model_that_would_not_load_refuses(
    method: str, message: str, family: str, tmp_path: Path
) -> None:
    model = backbone(family)
    attach_perturbed(model, method, bottleneck=4)
    folded: Any = unipeft.fold(model)
    assert bool(delta_names(folded)) == (method != "parallel_ffn")
    for each in (folded, copy.deepcopy(folded)):
        with pytest.raises(UserError, match=message):
            each.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_models_of_runs_refuse_too(tmp_path: Path) -> None:
    config = configured("task=xsum", "method=mam", "attn.bottleneck=8", "ffn.bottleneck=8")
    model = backbone("bart")
    attach(model, build_slots(config))
    with pytest.raises(UserError, match=LOST):
        model.save_pretrained(tmp_path / "model")
    detach(model)
    model.save_pretrained(tmp_path / "model")
