"""All supported families, by name. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Any, Literal

from unipeft_run.backbones.bart import BART
from unipeft_run.backbones.bert import BERT
from unipeft_run.backbones.clip import CLIP
from unipeft_run.backbones.family import Family
from unipeft_run.backbones.gpt2 import GPT2
from unipeft_run.backbones.llama import GEMMA, LLAMA, MISTRAL, QWEN2, QWEN3
from unipeft_run.backbones.mbart import MBART
from unipeft_run.backbones.roberta import ROBERTA
from unipeft_run.backbones.t5 import T5, T5_GATED
from unipeft_run.backbones.vit import VIT
from unipeft_run.errors import UserError

_TABLES = (
    *(BART, MBART, T5, T5_GATED),
    *(ROBERTA, BERT),
    *(LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA, GPT2),
    *(VIT, CLIP),
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in _TABLES}


def decoder_start(config: Any) -> int | Literal["rotate"] | None:
    """Return the id that starts every decoder input, "rotate" (see `Family`), or None."""
    start = family_of(config).decoder_start
    return config.decoder_start_token_id if start == "config" else start  # type: ignore[return-value]


def family_of(config: Any) -> Family:
    """Return the family of a transformers configuration. Raises UserError if there is none."""
    for family in FAMILIES.values():
        if family.fits(config):
            return family
    if config.model_type in model_types():
        raise UserError(describe_variant(vars(config), config.model_type))
    raise UserError(f"model_type={config.model_type} is not supported: have {', '.join(FAMILIES)}")


def describe_variant(fields: Mapping[str, Any], model_type: str) -> str:
    """Say that no family of this `model_type` has these values of the fields that select one."""
    variants = [f for f in FAMILIES.values() if (f.model_type or f.name) == model_type]
    keys = dict.fromkeys(key for family in variants for key in family.when)
    have = ", ".join(f"{key}={fields.get(key)}" for key in keys)
    return f"model_type={model_type} with {have} is not supported"


def model_types() -> list[str]:
    """List transformers' names of the supported families."""
    return list(dict.fromkeys(family.model_type or family.name for family in FAMILIES.values()))


def head_patterns(model: Any) -> list[str]:
    """Return patterns of the parameters of a task's head: those outside the backbone.

    A language model's head belongs to the backbone: it is trained with it. So do the projections of
    a retrieval model.
    """
    family = family_of(model.config)
    if family.task_type == "retrieval":
        return []
    backbone = _backbone_modules(model, family)
    patterns = (_head_pattern(name, backbone) for name, _ in model.named_parameters())
    return list(dict.fromkeys(pattern for pattern in patterns if pattern))


def _backbone_modules(model: Any, family: Family) -> set[str]:
    """Return the names of the base model, or of its parts, and of the language model's head."""
    parts = [stack.path for stack in family.stacks.values()]
    parts += [model.base_model_prefix, _name_of(model, model.get_input_embeddings())]
    output = _name_of(model, model.get_output_embeddings())
    return {part.partition(".")[0] for part in parts} | {output.rpartition(".")[0] or output}


def _head_pattern(parameter: str, backbone: set[str]) -> str | None:
    """Return a pattern of the largest module that holds a parameter and nothing of the backbone."""
    parts = parameter.split(".")
    for end in range(1, len(parts)):
        module = ".".join(parts[:end])
        if module in backbone:
            return None
        if not any(name.startswith(f"{module}.") for name in backbone):
            return f"{module}.*"
    return parameter


def _name_of(model: Any, module: Any) -> str:
    """Return the name of a module in the model; empty if it is None."""
    return next((name for name, other in model.named_modules() if other is module), "")
