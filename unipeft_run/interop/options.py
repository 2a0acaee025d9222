"""The official code's tune options: their names, defaults and choices (reference 1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unipeft_run.config.messages import unknown_choice, unknown_key
from unipeft_run.errors import UserError

DEFAULTS: Mapping[str, Any] = {
    "attn_mode": "none",
    "attn_option": "concat",
    "attn_composition": "add",
    "attn_bn": 200,
    "ffn_mode": "none",
    "ffn_option": "none",
    "ffn_bn": -1,
    "ffn_adapter_layernorm_option": "in",
    "ffn_adapter_init_option": "bert",
    "ffn_adapter_scalar": "1",
    "mid_dim": 800,
    "prefix_dropout": 0.0,
    "unfreeze_params": "ef_",
    "lora_alpha": 32.0,
    "lora_dropout": 0.0,
    "lora_init": "lora",
    "load_path": "",
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "attn_mode": ("prefix", "prefix_nomlp", "none", "bitfit", "lora", "adapter", "prompt_tuning"),
    "attn_option": (
        "none",
        "concat",
        "cross_attn",
        "cross_attn_noln",
        "cross_attn_relu",
        "parallel",
        "sequential",
    ),
    "attn_composition": ("add", "gate_add"),
    "ffn_mode": ("adapter", "none", "lora"),
    "ffn_option": ("parallel", "sequential", "pfeiffer", "none"),
    "ffn_adapter_layernorm_option": ("in", "out", "none"),
    "ffn_adapter_init_option": ("bert", "lora"),
    "lora_init": ("lora", "bert"),
}


def completed(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with the official defaults for what they leave out.

    Raises UserError, a ValueError, for an unknown option or choice, and for a scalar that is none.
    """
    for name in options:
        if name not in DEFAULTS:
            raise UserError(unknown_key(name, DEFAULTS))
    whole = {**DEFAULTS, **options}
    for name, allowed in CHOICES.items():
        if whole[name] not in allowed:
            raise UserError(unknown_choice(name, whole[name], allowed))
    _check_scalar(whole["ffn_adapter_scalar"])
    return whole


def _check_scalar(scalar: Any) -> None:
    try:
        if scalar != "learnable_scalar":
            float(scalar)
    except (TypeError, ValueError):
        raise UserError(
            f"ffn_adapter_scalar={scalar} is neither a number nor learnable_scalar"
        ) from None


def read_options(file: Path) -> dict[str, Any]:
    """The options in a JSON or YAML file, completed.

    A checkpoint's config.json serves too: the official code copies its options there.
    Raises UserError.
    """
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is damaged: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict):
        raise UserError(f"{file} does not hold options: name and value of each")
    if "model_type" in found:
        found = {name: value for name, value in found.items() if name in DEFAULTS}
    return completed(found)
