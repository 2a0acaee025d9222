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
    raise UserError(f"model_type={config.model_type} is not supported: have {', '.join(FAMILIES)}")


def model_types() -> list[str]:
    """List transformers' names of the supported families."""
    return list(dict.fromkeys(family.model_type or family.name for family in FAMILIES.values()))


def head_patterns(model: Any) -> list[str]:
    """Return patterns of the parameters of a task's head: those outside the base model.

    A language model's head is not one: it is trained with the base model.
    """
    base = model.base_model_prefix
    if model.get_output_embeddings() is not None or not hasattr(model, base):
        return []
    tops = dict.fromkeys(name.partition(".")[0] for name, _ in model.named_parameters())
    return [f"{top}.*" for top in tops if top != base]
