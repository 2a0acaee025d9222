"""The official code's tuning options: names, defaults, allowed values, reading from files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unipeft_run.backbones.fields import PROBABILITY, Rule, number
from unipeft_run.config.messages import shorten, unknown_choice, unknown_key
from unipeft_run.errors import UserError
from unipeft_run.interop.rules import SIZE, TEXT

MAX_BYTES = 2**20

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


def _is_scalar(value: Any) -> bool:
    """Return whether `value` is a positive number, possibly as text, or learnable_scalar."""
    if value == "learnable_scalar":
        return True
    try:
        return isinstance(value, str | int | float) and 0 < float(value) < math.inf
    except (ValueError, OverflowError):
        return False


RULES: Mapping[str, Rule] = {
    "attn_bn": SIZE,
    "ffn_bn": SIZE,
    "mid_dim": SIZE,
    "prefix_dropout": PROBABILITY,
    "lora_dropout": PROBABILITY,
    "lora_alpha": number("a number above 0", lambda value: value > 0),
    "ffn_adapter_scalar": Rule("a number above 0, or learnable_scalar", _is_scalar),
    "unfreeze_params": TEXT,
    "load_path": TEXT,
}


def complete_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` with the official defaults for missing ones.

    Raises UserError, a ValueError, for an unknown option and for a value that is not allowed.
    """
    for name in options:
        if name not in DEFAULTS:
            raise UserError(unknown_key(str(name), DEFAULTS))
    completed = {**DEFAULTS, **options}
    for name, allowed in CHOICES.items():
        if completed[name] not in allowed:
            raise UserError(unknown_choice(name, _bounded(completed[name]), allowed))
    for name, rule in RULES.items():
        is_default = completed[name] == DEFAULTS[name]  # ffn_bn=-1 if there is no FFN delta
        needed = name != "ffn_bn" or completed["ffn_mode"] != "none"
        if (needed or not is_default) and not rule.is_valid(completed[name]):
            value = shorten(_bounded(completed[name]))
            raise UserError(f"{name}={value}: must be {rule.description}")
    return completed


def _bounded(value: Any) -> Any:
    """Return `value` for a message; if nested, its type, since aliases may make it huge."""
    return value if value is None or isinstance(value, str | int | float) else type(value).__name__


def read_options(file: Path) -> dict[str, Any]:
    """Return the options in a JSON or YAML file, completed.

    A checkpoint's config.json may be given: the official code copies its options there.
    Raises UserError.
    """
    found = _read_yaml(file)
    if not isinstance(found, dict):
        raise UserError(f"{file} holds no options: it must map names to values")
    if "model_type" in found:
        found = {name: value for name, value in found.items() if name in DEFAULTS}
    try:
        return complete_options(found)
    except UserError as problem:
        raise UserError(f"{file}: {problem}") from None


def _read_yaml(file: Path) -> Any:
    try:
        if not file.is_file():
            raise UserError(f"there is no file {file}; --options names the official options")
        if file.stat().st_size > MAX_BYTES:
            raise UserError(f"{file} is too large for options: more than {MAX_BYTES:,} bytes")
        return yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except RecursionError:
        raise UserError(f"{file} is damaged: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or no such date
        raise UserError(f"{file} is damaged: {shorten(error, 120)}") from None
