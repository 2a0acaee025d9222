"""Which fields of a model's configuration may be set, and to which values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_families
import torch
import transformers
from hostile_models import change_json
from safetensors.torch import load_file, save_file
from tiny_files import write_roberta

from unipeft_run.backbones.families import FAMILIES, family_of
from unipeft_run.backbones.load import load_backbone
from unipeft_run.backbones.model_config import read_config
from unipeft_run.errors import UserError

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"num_attention_heads": 7}, "num_attention_heads=7 does not divide the hidden size 32"),
    ({"num_attention_heads": 0}, "num_attention_heads=0: must be a whole number from 1"),
    ({"hidden_size": -32}, "hidden_size=-32: must be a whole number from 1 to 1,000,000"),
    ({"hidden_size": 10**30}, "must be a whole number from 1 to 1,000,000"),
    ({"hidden_size": 32.0}, r"hidden_size=32\.0: must be a whole number"),
    ({"hidden_size": True}, "hidden_size=True: must be a whole number"),
    ({"hidden_size": "32"}, "hidden_size=32: must be a whole number"),
    ({"hidden_size": None}, "hidden_size=None: must be a whole number"),
    ({"hidden_size": [32]}, "must be a whole number"),
    ({"num_hidden_layers": 0}, "num_hidden_layers=0: must be"),
    ({"vocab_size": 0}, "vocab_size=0: must be"),
    ({"vocab_size": 1}, "pad_token_id=1 is outside the vocabulary: vocab_size=1"),
    ({"intermediate_size": -1}, "intermediate_size=-1: must be"),
    ({"max_position_embeddings": 2}, "max_position_embeddings=2 leaves no position"),
    ({"pad_token_id": None}, "pad_token_id=None: must be a whole number from 0"),
    ({"pad_token_id": -1}, "pad_token_id=-1: must be"),
    ({"pad_token_id": 4000}, "pad_token_id=4000 is outside the vocabulary"),
    ({"hidden_dropout_prob": 1.0}, "must be a number from 0 to below 1"),
    ({"hidden_dropout_prob": float("nan")}, "hidden_dropout_prob=nan: must be"),
    ({"layer_norm_eps": 0}, "layer_norm_eps=0: must be a number above 0"),
    ({"initializer_range": -0.1}, "must be a number of 0 or more"),
    ({"hidden_act": "evil"}, "hidden_act=evil: must be one of gelu"),
    ({"hidden_act": ["gelu"]}, "must be one of gelu"),
    ({"use_cache": 1}, "use_cache=1: must be true or false"),
    (
        {"vocab_size": 10**7, "hidden_size": 10**6, "num_attention_heads": 1},
        "parameters; at most 100,000,000,000 are supported",
    ),
]
LOCAL = "backbone.config."
T5_SMALL = {  # of the hub's config.json
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 2048,
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "num_heads": 8,
    "num_layers": 6,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "task_specific_params": {"summarization": {"num_beams": 4, "prefix": "summarize: "}},
    "vocab_size": 32128,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_roberta(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(("fields", "sentence"), WRONG)
def test_a_wrong_value_gives_one_sentence(
    folder: Path, fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as refusal:
        read_config(str(folder), "roberta", fields)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(("fields", "sentence"), WRONG)
def test_config_json_obeys_the_same_rules(
    tmp_path: Path, folder: Path, fields: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    change_json(tmp_path / "config.json", fields)
    with pytest.raises(UserError, match=sentence) as refusal:
        read_config(str(tmp_path), "roberta", {})
    assert str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "cannot be read"),
        ("[]", "not a JSON object"),
        ("{", "cannot be read"),
        ('{"a": ' + "[" * 50_000, "nested too deeply"),
        ('{"hidden_size": ' + "9" * 5000 + "}", "cannot be read"),
        ("\x00\xff", "cannot be read"),
        ("{}", "model_type=None is unknown; choose from bart, mbart, t5, roberta, bert"),
        ('{"model_type": "bart"}', "model_type=bart, but the .* `unipeft new backbone NAME --path"),
        (
            '{"model_type": "t5", "feed_forward_proj": "gated-gelu"}',
            "model_type=t5, but the backbone's family is roberta",
        ),
        ('{"model_type": "gpt3"}', "model_type=gpt3 is unknown"),
        ('{"model_type": "t5", "feed_forward_proj": "x"}', "t5 with feed_forward_proj=x is not"),
        ('{"model_type": ["roberta"]}', "is unknown"),
        ('{"model_type": "roberta", "is_decoder": true}', "is_decoder=True is not supported"),
        ('{"model_type": "roberta", "id2label": {}}', "num_labels=0: must be from 1"),
        ('{"model_type": "roberta", "num_labels": "x"}', "num_labels=x: must be from 1"),
    ],
)
def test_a_damaged_config_json_gives_one_sentence(
    tmp_path: Path, content: str, sentence: str
) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=sentence):
        read_config(str(tmp_path), "roberta", {})


@pytest.mark.parametrize("family", FAMILIES)
def test_all_fields_of_a_saved_model_are_read(family: str, tmp_path: Path) -> None:
    model = tiny_families.backbone(family)
    model.config.save_pretrained(tmp_path)
    read = read_config(str(tmp_path), family, {})
    ours, theirs = read.to_dict(), model.config.to_dict()
    left_out = {"architectures", "dtype", "transformers_version", "_name_or_path"}
    assert {k: v for k, v in ours.items() if k not in left_out} == {
        k: v for k, v in theirs.items() if k not in left_out
    }


def test_a_t5_of_version_1_0_does_not_name_its_activation(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(T5_SMALL))
    config = read_config(str(tmp_path), None, {})
    assert family_of(config).name == "t5"
    assert (config.feed_forward_proj, config.d_ff, config.num_layers) == ("relu", 2048, 6)


def test_another_activation_of_t5_is_named() -> None:
    config = transformers.T5Config(feed_forward_proj="gated-relu")
    with pytest.raises(UserError, match="model_type=t5 with feed_forward_proj=gated-relu is not"):
        family_of(config)


def test_a_field_has_its_name_and_its_alias(tmp_path: Path) -> None:
    tiny.backbone("bart").config.save_pretrained(tmp_path)
    for name in ("d_model", "hidden_size"):
        assert read_config(str(tmp_path), "bart", {name: 64}).d_model == 64
    change_json(tmp_path / "config.json", {"hidden_size": 96})  # d_model takes precedence
    assert read_config(str(tmp_path), "bart", {}).hidden_size == 32


LINEAR = {"rope_type": "linear", "factor": 2.0}
OLD = {"rope_theta": 5e5, "rope_scaling": LINEAR}  # a folder saved by transformers 4
NEW = {"rope_parameters": {"rope_theta": 5e5, **LINEAR}}  # by transformers 5


@pytest.mark.parametrize("saved", [OLD, NEW])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"rope_theta": 5e5, **LINEAR}),
        ({"rope_theta": 1e6}, {"rope_theta": 1e6, **LINEAR}),
        ({"rope_scaling": {"factor": 4.0}}, {"rope_theta": 5e5, **LINEAR, "factor": 4.0}),
        ({"rope_parameters": {"factor": 4.0}}, {"rope_theta": 5e5, **LINEAR, "factor": 4.0}),
        ({"rope_scaling": None}, {"rope_theta": 5e5, "rope_type": "default"}),
        ({"rope_scaling": {"rope_type": "default"}}, {"rope_theta": 5e5, "rope_type": "default"}),
    ],
)
def test_an_override_keeps_the_other_rotary_parameters(
    tmp_path: Path, saved: dict[str, Any], changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **saved}))
    assert read_config(str(tmp_path), "llama", changes).rope_parameters == expected


def test_sizes_beyond_the_weights_are_refused_before_they_are_allocated(folder: Path) -> None:
    with pytest.raises(UserError, match=r"describes [\d,]+ parameters, the weights hold"):
        load_backbone(str(folder), family="roberta", config={"vocab_size": 10**7})


def test_integer_weights_are_refused(tmp_path: Path) -> None:
    folder = write_roberta(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = "roberta.encoder.layer.0.output.dense.weight"
    tensors[name] = tensors[name].to(torch.int8)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=rf"{name} is int8; weights must be float32"):
        load_backbone(str(folder), family="roberta")


def test_another_shape_names_the_weights(folder: Path) -> None:
    with pytest.raises(UserError, match=r"lacks \d weights of the model, such as roberta.*shape"):
        load_backbone(str(folder), family="roberta", config={"intermediate_size": 48})
