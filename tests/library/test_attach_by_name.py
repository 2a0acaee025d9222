"""unipeft.attach: a method by name or by its axes equals what a run attaches; clear refusals."""

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from attached_models import TASKS
from named_deltas import delta_names, logits
from tiny import ENCODER, SEQ2SEQ, backbone
from tiny_config import configured
from tiny_families import LLAMA
from torch import nn

import unipeft
from unipeft_run.backbones.families import FAMILIES, head_patterns
from unipeft_run.deltas.attach import attach
from unipeft_run.deltas.slots import build_slots
from unipeft_run.errors import UserError

MAM = ("method=mam", "attn.bottleneck=8", "ffn.bottleneck=8")
PARALLEL = {
    "form": "bottleneck_zero",
    "insertion": "parallel",
    "representation": "ffn",
    "composition": "scaled",
    "bottleneck": 6,
    "scale": 4,
}


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {name: (p.requires_grad, p.detach().clone()) for name, p in model.named_parameters()}


def assert_same(model: nn.Module, expected: dict[str, Any]) -> None:
    found = snapshot(model)
    assert found.keys() == expected.keys()
    for name, (trains, value) in expected.items():
        assert found[name][0] == trains, name
        assert torch.equal(found[name][1], value), name


@pytest.mark.parametrize("family", list(TASKS))
def test_a_method_by_name_is_what_a_run_attaches(family: str) -> None:
    config = configured(
        f"task={TASKS[family]}", "method=mam", "attn.bottleneck=8", "ffn.bottleneck=8"
    )
    by_run, by_name = backbone(family), backbone(family)
    torch.manual_seed(0)
    attach(by_run, build_slots(config), config.unfreeze)
    torch.manual_seed(0)
    attached = unipeft.attach(by_name, "mam", bottleneck=8, head="frozen")
    assert_same(by_name, snapshot(by_run))
    assert torch.equal(logits(by_name, family), logits(by_run, family))
    assert attached.trained == sum(p.numel() for p in by_name.parameters() if p.requires_grad)


def test_axes_describe_the_same_delta_as_the_name() -> None:
    by_name, by_axes = backbone("bart"), backbone("bart")
    torch.manual_seed(0)
    unipeft.attach(by_name, "mam", attn=None, bottleneck=6)
    torch.manual_seed(0)
    assert unipeft.attach(by_axes, ffn=PARALLEL).method == "custom"
    assert_same(by_axes, snapshot(by_name))


def test_axes_and_sizes_of_a_method_can_be_changed() -> None:
    model: Any = backbone("bart")
    changed = {"composition": "add", "form": {"activation": "gelu"}, "representation.layers": [1]}
    unipeft.attach(model, "mam", ffn=changed, bottleneck=3, **{"attn.mlp_width": None})
    assert not any("layers.0.fc2" in path for path in delta_names(model))
    delta = model.model.encoder.layers[1].fc2.delta_ffn
    assert type(delta.composition).__name__ == "Add"
    assert isinstance(delta.form.activation, nn.GELU)
    assert model.model.encoder.layers[0].self_attn.delta_attn.form.keys.shape == (3, 32)


@pytest.mark.parametrize(
    "key, number",
    [
        ("bottleneck", np.int64(4)),
        ("bottleneck", torch.tensor(4)),
        ("ffn.scale", np.float32(4)),
        ("ffn.scale", torch.tensor(4.0)),
    ],
)
def test_numbers_of_other_libraries_are_numbers(key: str, number: Any) -> None:
    method = "scaled_parallel_ffn"
    expected = unipeft.attach(backbone("bart"), method, **{key: 4})
    assert unipeft.attach(backbone("bart"), method, **{key: number}) == expected
    slot = {key.removeprefix("ffn."): number}
    assert unipeft.attach(backbone("bart"), method, ffn=slot) == expected


def test_printing_shows_the_sites() -> None:
    attached = unipeft.attach(backbone("roberta"), "mam", bottleneck=8)
    lines = [line.split() for line in str(attached).splitlines()]
    layer = "roberta.encoder.layer.0-1."
    assert lines == [
        ["mam:", "mam", "on", "RobertaForSequenceClassification"],
        ["slot", "representation", "path", "sites", "trained", "stored", "share"],
        ["attn", "attn.heads", f"{layer}attention.self", "2", "129,184", "1,024", "4.51", "%"],
        ["ffn", "ffn", f"{layer}output.dropout", "2", "1,104", "1,104", "4.86", "%"],
        ["unfreeze", "backbone", "classifier.*", "4", "1,155", "1,155", "5.08", "%"],
        ["total", "131,443", "3,283", "14.45", "%"],
    ]
    assert attached.stored == 3283
    assert attached.stored_percent == pytest.approx(100 * 3283 / attached.backbone)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"method": "mamm"}, r"did you mean mam\?"),
        ({"method": "mam", "botleneck": 8}, r"no key botleneck; did you mean bottleneck\?"),
        ({"method": "mam", "ffn.form": {"dropuot": 0}}, r"did you mean ffn.form.dropout\?"),
        ({"method": "mam", "seed": 3}, "no key seed"),
        ({"method": "mam", "bottleneck": 0}, "attn.bottleneck=0: must be at least 1"),
        ({"method": "mam", "ffn": 8}, "ffn=8: must be a mapping of axes"),
        ({"method": "bitfit", "bottleneck": 8}, "no slot of this method has a bottleneck"),
        ({"method": "mam", "attn": {"scale": 2}}, "attn.scale has no effect"),
        ({"method": "mam", "attn": {"insertion": "sequential"}}, "insertion sequential is illegal"),
        ({"method": "mam", "attn": {"representation.layers": [7]}}, "layers 0 to 1"),
        ({"method": "mam", "unfreeze": ["nothing*"]}, "matches no parameter"),
        ({"method": "mam", "head": "froze"}, r"did you mean frozen\?"),
        ({"method": "mam", "name": "a.b"}, "name=a.b: must be letters"),
        ({"method": "none"}, "attaches nothing to a BartForConditionalGeneration"),
        ({}, "nothing to attach: give a method, one of adapter_attn"),
        ({"method": "mam", "bottleneck": 4.0}, r"attn.bottleneck=4\.0: must be a whole number"),
        ({"method": "mam", "ffn": {"scale": np.ones(2)}}, "ffn.scale=.*must be one number, not an"),
        ({"ffn": {"form": "bottlneck"}}, r"ffn: form bottlneck is unknown .did you mean bot"),
    ],
)
def test_a_refusal_names_what_is_wrong_and_changes_nothing(
    settings: dict[str, Any], message: str
) -> None:
    model = backbone("bart")
    expected, before = snapshot(model), dict(vars(model))
    with pytest.raises(UserError, match=message):
        unipeft.attach(model, **settings)
    assert_same(model, expected)
    assert vars(model).keys() == before.keys()


@pytest.mark.parametrize(
    "model, message",
    [
        (nn.Linear(2, 2), "Linear is not a transformers model"),
        (
            transformers.OPTModel(
                transformers.OPTConfig(
                    hidden_size=8,
                    word_embed_proj_dim=8,
                    ffn_dim=8,
                    num_hidden_layers=1,
                    num_attention_heads=1,
                    vocab_size=9,
                )
            ),
            "model_type=opt is not supported: have bart, mbart, t5",
        ),
        (
            transformers.RobertaModel(transformers.RobertaConfig(**ENCODER)),
            "RobertaModel does not hold its layers at roberta.encoder.layer, where deltas are",
        ),
        (
            transformers.LlamaForQuestionAnswering(transformers.LlamaConfig(**LLAMA)),
            "LlamaForQuestionAnswering does not hold its layers at model.layers, where deltas are "
            "attached; use a class that does, such as LlamaForCausalLM",
        ),
        (
            transformers.RobertaForCausalLM(transformers.RobertaConfig(**ENCODER, is_decoder=True)),
            "config.is_decoder=True: must be False",
        ),
    ],
)
def test_an_unsupported_model_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        unipeft.attach(model, "mam")


def test_a_quantised_model_is_refused() -> None:
    model = backbone("bart")
    model.is_quantized = True  # as the loader of transformers sets it
    with pytest.raises(UserError, match="is quantised; deltas need a backbone with floating-point"):
        unipeft.attach(model, "mam")


def test_a_model_that_unipeft_run_attached_to_is_refused() -> None:
    model = backbone("bart")
    config = configured("task=xsum", *MAM)
    attach(model, build_slots(config))
    with pytest.raises(UserError, match="not attached with unipeft"):
        unipeft.attach(model, "mam")
    assert delta_names(model)
    unipeft.detach(model)
    assert not delta_names(model)


def test_an_attention_implementation_without_heads_is_refused() -> None:
    model = backbone("bart")
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(UserError, match="flash_attention_2; choose sdpa or eager"):
        unipeft.attach(model, "prefix", bottleneck=2)
    assert not delta_names(model)


@pytest.mark.parametrize(
    "kind, head",
    [
        ("RobertaForSequenceClassification", ["classifier.*"]),
        ("RobertaForTokenClassification", ["classifier.*"]),
        ("RobertaForQuestionAnswering", ["qa_outputs.*"]),
        ("RobertaForMaskedLM", []),
        ("BartForSequenceClassification", ["classification_head.*"]),
        ("BartForConditionalGeneration", []),
        ("MBartForConditionalGeneration", []),
    ],
)
def test_the_head_of_a_task_trains(kind: str, head: list[str]) -> None:
    cls = getattr(transformers, kind)
    model = cls(cls.config_class(**(ENCODER if kind.startswith("Roberta") else SEQ2SEQ)))
    assert head_patterns(model) == head
    unipeft.attach(model, "mam", bottleneck=2)
    trains = {n for n, p in model.named_parameters() if p.requires_grad and "delta_" not in n}
    assert {f"{name.partition('.')[0]}.*" for name in trains} == {*head}


def test_the_runs_and_the_library_agree_on_the_classifier() -> None:
    assert head_patterns(backbone("roberta")) == list(FAMILIES["roberta"].head)


def test_attach_works_inside_an_application_of_hydra() -> None:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from unipeft_run.extensions import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        unipeft.attach(backbone("bart"), "houlsby", bottleneck=2, ffn={"form.dropout": 0.0})
        assert GlobalHydra.instance().is_initialized()


def test_attaching_leaves_the_sizes_of_later_configurations() -> None:
    code = """if True:
        from unipeft_run.config import compose, resolve
        from unipeft_run.library.choices import configure
        configure("bart", "mam", {})
        print(resolve(compose(["task=xsum", "method=prompt"])).input.bottleneck)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "300\n", done.stderr  # conf/preset/paper.yaml


def test_importing_the_library_imports_nothing_heavy() -> None:
    code = "import sys, unipeft; dir(unipeft); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_public_names_exist_and_others_do_not() -> None:
    assert re.fullmatch(r"\d+\.\d+.*", unipeft.__version__)
    for name in unipeft.__all__:
        assert getattr(unipeft, name)
    with pytest.raises(AttributeError, match="no attribute 'atach'"):
        unipeft.atach  # noqa: B018
