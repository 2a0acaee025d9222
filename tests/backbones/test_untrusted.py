"""No code in a model folder is executed, no matter which file refers to it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hostile_models import AUTO_MAP, HostileModel, change_json, write_pickle
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer

from unipeft_run.backbones.load import load_backbone, load_tokenizer
from unipeft_run.errors import UserError


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostileModel:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))  # to "run the custom code? [y/N]"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return HostileModel(tmp_path)


def load(model: HostileModel, **settings: Any) -> Any:
    load_tokenizer(str(model.folder))
    return load_backbone(str(model.folder), family="roberta", **settings)


def test_the_folder_is_hostile(model: HostileModel) -> None:
    """transformers executes the code when told to trust it, so the other tests can fail."""
    model.change("config.json", auto_map=AUTO_MAP)
    AutoConfig.from_pretrained(model.folder, trust_remote_code=True)
    assert model.was_executed


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_auto_map_is_refused(model: HostileModel, file: str) -> None:
    model.change(file, auto_map=AUTO_MAP)
    with pytest.raises(UserError, match=rf"{file}: auto_map asks for code"):
        load(model)
    assert not model.was_executed


@pytest.mark.parametrize(
    "option",
    [
        {"trust_remote_code": True},
        {"auto_map": AUTO_MAP},
        {"code_revision": "main"},
        {"attn_implementation": "kernels-community/flash-attn"},
        {"_attn_implementation": "eager"},
        {"quantization_config": {"quant_method": "gptq"}},
        {"torch_dtype": "float16"},
        {"dtype": "float16"},
        {"cache_dir": "elsewhere"},
        {"subfolder": "elsewhere"},
        {"revision": "main"},
        {"token": "secret"},
        {"_configuration_file": "evil.json"},
        {"gguf_file": "evil.gguf"},
        {"use_safetensors": False},
        {"transformers_weights": "pytorch_model.bin"},
        {"name_or_path": "elsewhere"},
        {"num_labels": 3},
        {"is_decoder": True},
        {3: 4},
    ],
    ids=lambda option: str(next(iter(option))),
)
def test_a_loading_option_is_not_a_field(model: HostileModel, option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"there is no key backbone\.config\.{next(iter(option))}"):
        load(model, config=option)
    assert not model.was_executed


@pytest.mark.parametrize(
    "content",
    [
        {"architectures": ["Evil"]},
        {"_attn_implementation": "kernels-community/flash-attn"},
        {"attn_implementation": "kernels-community/flash-attn"},
        {"_attn_implementation_internal": "kernels-community/flash-attn"},
        {"torch_dtype": "load"},
        {"dtype": "load"},
        {"trust_remote_code": True},
        {"transformers_weights": "pytorch_model.bin"},
        {"configuration_files": ["config.4.0.json"]},
        {"fusion_config": {"patch_embeddings": True}},
        {"per_layer_config": {"0": {"hidden_size": 64}}},
        {"_name_or_path": "elsewhere/model"},
        {"output_attentions": True},
        {"id2label": {"0": "x" * 1000, "1": "y"}},
    ],
    ids=lambda content: next(iter(content)),
)
def test_other_entries_of_config_json_have_no_effect(
    model: HostileModel, content: dict[str, Any]
) -> None:
    before = load(model).config.to_dict()
    model.change("config.json", **content)
    assert load(model).config.to_dict() == before
    assert not model.was_executed


def test_quantised_weights_are_refused(model: HostileModel) -> None:
    model.change("config.json", quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(UserError, match="quantization_config asks for quantised weights"):
        load(model)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickled_weights_are_refused_with_the_conversion(model: HostileModel, name: str) -> None:
    model.pickle_weights(name)
    with pytest.raises(UserError, match=rf"{name} is a pickle.*\npython -c .*weights_only=True"):
        load(model)
    assert not model.was_executed


def test_a_pickle_in_place_of_safetensors_is_damaged(model: HostileModel) -> None:
    write_pickle(model.folder / "model.safetensors", model.proof)
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        load(model)
    assert not model.was_executed


def test_an_adapter_next_to_the_weights_is_ignored(model: HostileModel) -> None:
    """transformers would load the base model that adapter_config.json names."""
    model.change("adapter_config.json", base_model_name_or_path=str(model.folder / "elsewhere"))
    write_pickle(model.folder / "adapter_model.bin", model.proof)
    load(model)
    assert not model.was_executed


def test_generation_config_is_not_read(tmp_path: Path) -> None:
    tiny.backbone("bart").save_pretrained(tmp_path)
    before: Any = load_backbone(str(tmp_path), family="bart")
    change_json(tmp_path / "generation_config.json", {"max_length": 3, "custom_generate": "evil"})
    after: Any = load_backbone(str(tmp_path), family="bart")
    assert after.generation_config.to_dict() == before.generation_config.to_dict()
    assert after.generation_config.max_length != 3


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "shard.bin", ".safetensors", 7, None]
)
def test_an_index_may_only_name_safetensors_files_in_its_folder(
    model: HostileModel, name: Any
) -> None:
    (model.folder / "model.safetensors").rename(model.folder.parent / "model.safetensors")
    model.change("model.safetensors.index.json", weight_map={"a": name})
    with pytest.raises(UserError, match="is not a safetensors file name"):
        load(model)


def test_weights_in_several_files_are_loaded(model: HostileModel) -> None:
    whole = load(model).state_dict()
    tensors = load_file(model.folder / "model.safetensors")
    (model.folder / "model.safetensors").unlink()
    names = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for shard in set(names.values()):
        part = {name: t for name, t in tensors.items() if names[name] == shard}
        save_file(part, model.folder / shard)
    model.change("model.safetensors.index.json", weight_map=names)
    assert all(torch.equal(t, whole[name]) for name, t in load(model).state_dict().items())
    (model.folder / "model-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no model-1\.safetensors, which"):
        load(model)


@pytest.mark.parametrize("name", ["Evil", "BertTokenizer", "GPT2TokenizerFast", 7, ["x"]])
def test_a_foreign_tokenizer_class_is_refused(model: HostileModel, name: Any) -> None:
    model.change("tokenizer_config.json", tokenizer_class=name)
    with pytest.raises(UserError, match="is not supported for roberta; choose from RobertaTok"):
        load(model)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_tokenizer_settings_outside_the_list_have_no_effect(model: HostileModel, file: str) -> None:
    elsewhere = model.folder.parent / "other.json"
    elsewhere.write_text("{}")
    before = load_tokenizer(str(model.folder))
    model.change(
        file,
        tokenizer_file=str(elsewhere),
        vocab_file=str(elsewhere),
        fast_tokenizer_files=["tokenizer.0.json"],
        gguf_file=str(elsewhere),
        trust_remote_code=True,
        init_inputs=["x"],
        chat_template="{{ cycler.__init__.__globals__.os.system('true') }}",
    )
    (model.folder / "chat_template.jinja").write_text("{{ evil }}")
    after = load_tokenizer(str(model.folder))
    assert after("a cat")["input_ids"] == before("a cat")["input_ids"]
    assert after.chat_template is None
    assert "trust_remote_code" not in after.init_kwargs


def test_a_tokenizer_equals_that_of_transformers(model: HostileModel) -> None:
    theirs, ours = AutoTokenizer.from_pretrained(model.folder), load_tokenizer(str(model.folder))
    assert type(ours) is type(theirs)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert ours("the cat", "a dog") == theirs("the cat", "a dog")
    assert json.dumps(ours.special_tokens_map) == json.dumps(theirs.special_tokens_map)
    assert ours.name_or_path == str(model.folder)
