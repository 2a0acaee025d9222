"""All supported families, by transformers' `model_type`. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Any, Literal

from unipeft_run.backbones.bart import BART
from unipeft_run.backbones.family import Family
from unipeft_run.backbones.mbart import MBART
from unipeft_run.backbones.roberta import ROBERTA
from unipeft_run.errors import UserError

FAMILIES: Mapping[str, Family] = {family.name: family for family in (BART, MBART, ROBERTA)}


def decoder_start(config: Any) -> int | Literal["rotate"] | None:
    """Return the id that starts every decoder input, "rotate" (see `Family`), or None."""
    start = family_of(config).decoder_start
    return config.decoder_start_token_id if start == "config" else start  # type: ignore[return-value]


def family_of(config: Any) -> Family:
    """Return the family of a transformers configuration. Raises UserError if there is none."""
    try:
        return FAMILIES[config.model_type]
    except KeyError:
        known = ", ".join(FAMILIES)
        raise UserError(f"model_type={config.model_type} is not supported: have {known}") from None
