"""Which modules a method of the PEFT library adapts: layers, ranks by name, the head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tuners import backbone, inputs_of, train

from unipeft_run.config.schema import TunerConfig
from unipeft_run.deltas.attach import attach, attach_library
from unipeft_run.errors import UserError
from unipeft_run.interop.peft import export_peft
from unipeft_run.tuners.adapter import Adapter

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings(  # of the library, in its own code
    "ignore::UserWarning:peft", "ignore:.*is_gradient_checkpointing"
)

OURS = ["attn.query", "attn.value"]


def adapted(
    family: str, targets: Any, unfreeze: tuple[str, ...] = (), kind: str = "LORA", **config: Any
) -> Adapter:
    model = backbone(family)
    attach(model, {}, unfreeze)
    tuner = TunerConfig(type=kind, config={"target_modules": targets, **config})
    return attach_library(model, tuner)


@pytest.mark.parametrize(
    ("family", "theirs"),
    [("roberta", ["query", "value"]), ("llama", ["q_proj", "v_proj"]), ("t5", ["q", "v"])],
)
@pytest.mark.parametrize(
    "layers",
    [
        {"layers_to_transform": [1]},
        {"layers_to_transform": 0},
        {"layers_to_transform": [1], "layers_pattern": "layer"},
        {"layers_to_transform": [0], "layers_pattern": ["layers", "layer", "block"]},
    ],
)
def test_our_names_are_adapted_in_the_layers_that_the_library_would_adapt(
    family: str, theirs: list[str], layers: dict[str, Any]
) -> None:
    try:
        expected = adapted(family, theirs, **layers)
    except UserError:  # no layer has this pattern
        with pytest.raises(UserError, match=r"no module of peft\.config\.target_modules is"):
            adapted(family, OURS, **layers)
        return
    found = adapted(family, OURS, **layers)
    assert found.places == expected.places
    assert len(found.places) < len(adapted(family, OURS).places)


def test_an_ending_beside_our_names_keeps_the_library_s_meaning() -> None:
    found = adapted("roberta", ["attn.query", "key"], layers_to_transform=[1])
    assert sorted(found.places.values()) == ["attn.key", "attn.query"]


def test_layers_without_a_module_are_an_error() -> None:
    with pytest.raises(UserError, match=r"layers_to_transform=\[7\]: no module of peft\.config"):
        adapted("roberta", OURS, layers_to_transform=[7])
    with pytest.raises(
        UserError, match=r"peft\.config\.layers_to_transform=x: rejected by the PEFT library"
    ):
        adapted("roberta", OURS, layers_to_transform="x")


def test_our_names_choose_ranks_and_scales() -> None:
    found = adapted(
        "roberta", OURS, r=2, rank_pattern={"attn.query": 4}, alpha_pattern={"attn.value": 16}
    )
    layers = {p: found.model.get_submodule(p) for p in found.places}
    ranks = {found.places[p]: layer.r["default"] for p, layer in layers.items()}
    scales = {found.places[p]: layer.scaling["default"] for p, layer in layers.items()}
    assert ranks == {"attn.query": 4, "attn.value": 2}
    assert scales == {"attn.query": 2.0, "attn.value": 8.0}


def test_two_ranks_of_one_matrix_are_an_error() -> None:
    with pytest.raises(UserError, match=r"rank_pattern\.attn\.value=8: .*c_attn has the value 4"):
        adapted("gpt2", OURS, rank_pattern={"attn.query": 4, "attn.value": 8})


@pytest.mark.parametrize("family", ["roberta", "bert", "vit"])
@pytest.mark.parametrize("unfreeze", [(), ("classifier.*",)])
@pytest.mark.parametrize(
    ("kind", "targets"), [("LORA", "all-linear"), ("LORA", ["dense"]), ("ROAD", "all-linear")]
)
def test_the_head_stays_whole_and_peft_loads_the_export(
    family: str, unfreeze: tuple[str, ...], kind: str, targets: Any, tmp_path: Path
) -> None:
    if family == "vit" and targets == ["dense"]:
        pytest.skip("it has no such module")
    sizes = {"group_size": 8} if kind == "ROAD" else {"r": 2}
    model = adapted(family, targets, unfreeze, kind, **sizes).model
    assert "classifier" in {n.partition(".")[0] for n, _ in model.named_parameters()}
    assert not any("base_layer" in n for n in model.classifier.state_dict())
    train(model, inputs_of(family))
    export_peft(model, tmp_path / "out")
    loaded = peft.PeftModel.from_pretrained(backbone(family), tmp_path / "out").eval()
    with torch.no_grad():
        found, wanted = loaded(**inputs_of(family)).logits, model(**inputs_of(family)).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "targets", [["query", "out_proj"], ["classifier.dense"], r"classifier\..*", ["classifier"]]
)
def test_a_target_in_the_head_is_an_error(targets: Any) -> None:
    family = "bert" if targets == ["classifier"] else "roberta"
    with pytest.raises(UserError, match=r"is in the head of the task, .*head=trained"):
        adapted(family, targets)


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("bart", "SequenceClassification"),
        ("llama", "SequenceClassification"),
        ("bert", "QuestionAnswering"),
    ],
)
def test_the_head_of_any_task_stays_whole(family: str, task: str) -> None:
    config = backbone(family).config
    name = type(backbone(family)).__name__.partition("For")[0]
    model = getattr(transformers, f"{name}For{task}")(config)
    attach(model, {})
    tuner = TunerConfig(type="LORA", config={"target_modules": "all-linear"})
    adapter = attach_library(model, tuner)
    assert {path.partition(".")[0] for path in adapter.places} == {model.base_model_prefix}


def test_an_invalid_pattern_is_one_error() -> None:
    with pytest.raises(
        UserError, match=r"peft\.type=LORA: rejected by the PEFT library: .*character"
    ):
        adapted("roberta", "[")
