"""Load checkpoints of the PEFT library: its configuration, its tensors and the backbone's.

Plain LoRA at our sites becomes our deltas; everything else keeps the library's modules. A method
that learns a prompt or a prefix keeps the library's wrapper, which prepends it.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
import transformers
from torch import nn

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.quiet import no_loading_report
from unipeft_run.backbones.weights import FLOAT_TYPES
from unipeft_run.config.messages import shorten, unknown_choice
from unipeft_run.errors import UserError
from unipeft_run.interop.peft_config import ROOT
from unipeft_run.interop.peft_import import attach_lora
from unipeft_run.interop.rules import NAMES, TARGETS, check_values
from unipeft_run.interop.tensors import cast, check_type, find_dtype
from unipeft_run.tuners.adalora import AddPenalty
from unipeft_run.tuners.library import (
    ADAPTER,
    build_config,
    converted_errors,
    import_library,
    quiet,
    wrap,
)

Tensors = Mapping[str, torch.Tensor]

KEY = "peft_config"
PREFIX, GENERATOR = "base_model.", "prompt_encoder."
PROMPTS = ("prompt_embeddings", "prefix_task_cols", "prefix_task_rows")
LORA = (".lora_A.weight", ".lora_B.weight")
NARROWING = ("layers_to_transform", "layers_pattern", "exclude_modules", "rank_pattern")
AUTO = {  # the library's task types -> transformers' classes
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}
HEADS = ("classifier", "score", "qa_outputs")  # the library adds them, whatever the model
MODULES = {"modules_to_save": NAMES.or_null(), "target_modules": TARGETS}


def from_peft(peft_config: Mapping[str, Any], config: Any, state: Tensors) -> nn.Module:
    """Return the transformers model of `config`, with every tensor of a PEFT checkpoint loaded.

    Args:
        peft_config: the content of the checkpoint's adapter_config.json.
        config: a transformers configuration.
        state: the backbone's tensors by transformers' names, and the checkpoint's as
            `get_peft_model_state_dict` names them: `base_model.*`, `prompt_embeddings`. The
            parameters that generate a prompt (`prompt_encoder.*`) are optional.

    The model has the type of the backbone's tensors, is in eval mode, and trains what the method
    trains. Without the generating parameters, a prompt itself is trainable. A learned prompt or
    prefix returns the library's wrapper of the model. Raises ValueError for an option or a tensor
    that it cannot take.
    """
    fields = {**peft_config, "base_model_name_or_path": None}
    kind = str(fields.pop("peft_type", None))
    check_values({key: fields.get(key) for key in MODULES}, MODULES, f"{KEY}.")
    peft_config = build_config(kind, fields, KEY)
    if fields.get("alora_invocation_tokens"):
        raise ValueError(
            f"{KEY}.alora_invocation_tokens cannot be loaded: it acts in the library's own "
            "forward, which is not used here"
        )
    adapter = {name: tensor for name, tensor in state.items() if _is_adapters(name)}
    backbone = {name: tensor for name, tensor in state.items() if name not in adapter}
    model = _load_backbone(config, fields.get("task_type"), backbone, adapter)
    _check_saved(model, fields.get("modules_to_save"))
    if kind == "LORA" and _attach_ours(model, {**fields, "peft_type": kind}, adapter):
        return model.eval()
    return _attach_theirs(model, peft_config, adapter).eval()


def _is_adapters(name: str) -> bool:
    return name.startswith((PREFIX, GENERATOR)) or name in PROMPTS


def _load_backbone(config: Any, task_type: Any, tensors: Tensors, adapter: Tensors) -> nn.Module:
    """Build the model and load its tensors. Raises ValueError for a missing or unknown tensor."""
    cls = _model_class(config, task_type)
    for name, tensor in tensors.items():
        if tensor.is_complex():  # loading it would only warn
            check_type(name, tensor)
    with no_loading_report():
        model, report = cls.from_pretrained(  # reads no file: everything is passed in
            None,
            config=deepcopy(config),
            state_dict=dict(tensors),
            dtype=find_dtype(tensors),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    for name, stored, expected in report["mismatched_keys"]:
        raise ValueError(f"{name} has the shape {list(stored)}, but the model has {list(expected)}")
    for name in sorted(report["unexpected_keys"]):
        raise ValueError(f"the model has no tensor {shorten(name)}")
    heads = {name.removeprefix(PREFIX).removeprefix("model.") for name in adapter}
    for name in sorted(set(report["missing_keys"]) - heads):  # the adapter may hold a head
        raise ValueError(f"the checkpoint has no tensor {name}")
    _check_types(model, tensors)
    return model


def _check_types(model: Any, tensors: Tensors) -> None:
    """Raise ValueError if a floating-point tensor of the backbone was given in another type."""
    prefix = f"{model.base_model_prefix}."
    numbers = {
        name.removeprefix(prefix)
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point()
    }
    for name, tensor in tensors.items():
        if name.removeprefix(prefix) in numbers:
            check_type(name, tensor)


def _check_saved(model: nn.Module, names: Any) -> None:
    """Raise ValueError for a name in modules_to_save that no module of the backbone has."""
    paths = [path for path, _ in model.named_modules()]
    for name in names or ():
        if name not in HEADS and not any(path.endswith(name) for path in paths):
            raise ValueError(f"{KEY}.modules_to_save: the model has no module {shorten(name)}")


def _model_class(config: Any, task_type: Any) -> Any:
    """Return transformers' class for a task type of the library; by default our family's."""
    if task_type is None:
        named = (getattr(config, "architectures", None) or [None])[0]
        return getattr(transformers, named or family_of(config).model)
    name = str(getattr(task_type, "value", task_type))
    if name not in AUTO:
        raise ValueError(unknown_choice(f"{KEY}.task_type", name, AUTO))
    with torch.device("meta"), converted_errors(f"{KEY}.task_type={name}"):
        return type(getattr(transformers, AUTO[name]).from_config(deepcopy(config)))


def _attach_ours(model: nn.Module, config: dict[str, Any], tensors: Tensors) -> bool:
    """Attach plain LoRA at our sites as deltas; return False, changing nothing, for any other."""
    named = {name.removeprefix(ROOT): tensor for name, tensor in tensors.items()}
    try:
        if not _is_plain(model, config, named):
            return False
        attach_lora(model, config, named, KEY)
    except UserError:
        return False
    return True


def _is_plain(model: Any, config: Mapping[str, Any], named: Tensors) -> bool:
    """Return whether the tensors are plain LoRA in the model of one of our families."""
    if type(model).__name__ != family_of(model.config).model:
        return False
    if any(config.get(key) for key in NARROWING) or named.keys() != _plain_names(model, config):
        return False
    if any(tensor.dtype not in FLOAT_TYPES for tensor in named.values()):
        return False
    factors = {name: tensor for name, tensor in named.items() if name.endswith(LORA)}
    rank = config.get("r", 8)
    return all(
        tensor.ndim == 2 and tensor.size(0 if name.endswith(LORA[0]) else 1) == rank
        for name, tensor in factors.items()
    )


def _plain_names(model: nn.Module, config: Mapping[str, Any]) -> set[str]:
    """Return the names of the tensors of plain LoRA at the modules that `config` lists."""
    listed = {key: config.get(key) or () for key in ("target_modules", "modules_to_save")}
    paths = {
        key: [path for path, _ in model.named_modules() if _ends_with(path, names)]
        for key, names in listed.items()
    }
    heads = tuple(f"{path}." for path in paths["modules_to_save"])
    return {
        *(f"{path}{suffix}" for path in paths["target_modules"] for suffix in LORA),
        *(name for name, _ in model.named_parameters() if name.startswith(heads)),
    }


def _ends_with(path: str, names: Any) -> bool:
    if isinstance(names, str):  # a regular expression, or all-linear
        return False
    return any(path == name or path.endswith(f".{name}") for name in names)


def _attach_theirs(model: nn.Module, config: Any, tensors: Tensors) -> nn.Module:
    """Put the library's modules into the model and load their tensors."""
    generator = {name: t for name, t in tensors.items() if name.startswith(GENERATOR)}
    kind = config.peft_type.value
    # while training, the library generates the prompt; in inference, it reads the generated one
    config.inference_mode = bool(config.is_prompt_learning and not generator)
    dtype, buffers = next(model.parameters()).dtype, list(model.buffers())
    wrapper = wrap(model, config, f"{KEY}.peft_type={kind}")
    cast(wrapper, dtype, buffers)
    stored = {name: tensor for name, tensor in tensors.items() if name not in generator}
    if generator:
        _load_generator(wrapper, generator)
    _load_stored(wrapper, stored, f"{KEY}.peft_type={kind}", generated=bool(generator))
    if config.is_prompt_learning:
        wrapper.requires_grad_(False)
        _train_prompt(wrapper)
        return wrapper
    if kind == "ADALORA" and config.task_type is not None:  # as the library's wrapper does
        model.register_forward_hook(AddPenalty(config.orth_reg_weight).add)
    return model


def _load_generator(wrapper: Any, tensors: Tensors) -> None:
    """Load the parameters that generate a prompt."""
    expected = {n: p for n, p in wrapper.named_parameters() if n.startswith(GENERATOR)}
    _check_names(tensors, expected)
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(tensors[name])


def _load_stored(wrapper: Any, tensors: Tensors, key: str, *, generated: bool) -> None:
    """Load the tensors of the checkpoint; a `generated` prompt is only checked."""
    peft = import_library()
    with quiet(), converted_errors(key):
        expected = peft.get_peft_model_state_dict(wrapper)
    _check_names(tensors, expected)
    prompt = expected.get(PROMPTS[0])
    if generated and prompt is not None:
        if not torch.allclose(prompt, tensors[PROMPTS[0]].to(prompt), atol=1e-6):
            raise ValueError(f"{PROMPTS[0]} differs from what the tensors {GENERATOR}* generate")
        tensors = {**tensors, PROMPTS[0]: wrapper.prompt_encoder[ADAPTER].embedding.weight}
    with quiet(), converted_errors(key):
        peft.set_peft_model_state_dict(wrapper, dict(tensors))


def _check_names(given: Tensors, expected: Tensors) -> None:
    """Raise ValueError for a tensor that is missing, unexpected or of another shape or type."""
    for name in sorted(expected.keys() - given.keys()):
        raise ValueError(f"the checkpoint has no tensor {name}")
    for name in sorted(given.keys() - expected.keys()):
        raise ValueError(f"unexpected tensor {shorten(name)}")
    for name, tensor in expected.items():
        if given[name].shape != tensor.shape:
            shapes = f"{list(given[name].shape)}, but {KEY} describes {list(tensor.shape)}"
            raise ValueError(f"{name} has the shape {shapes}")
        if tensor.is_floating_point():
            check_type(name, given[name])


def _train_prompt(wrapper: Any) -> None:
    """Make the prompt, or what generates it, and a trained head trainable."""
    wrapper.prompt_encoder.requires_grad_(True)
    for module in wrapper.modules():
        heads = getattr(module, "modules_to_save", None)
        if isinstance(heads, nn.ModuleDict):
            heads.requires_grad_(True)
