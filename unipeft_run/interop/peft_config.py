"""Validate an untrusted adapter_config.json of PEFT. Imports nothing heavy."""

import re
from collections.abc import Mapping
from typing import Any

from unipeft_run.backbones.families import head_patterns
from unipeft_run.backbones.fields import PROBABILITY, Rule, number
from unipeft_run.config.messages import shorten
from unipeft_run.errors import UserError

# files of a folder, and the prefix of the names in it
CONFIG, TENSORS, ROOT = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
LINEAR = ("attn.query", "attn.key", "attn.value", "ffn.up", "ffn.down")  # where LoRA is ours
TASK_TYPES = {  # ends of transformers' class names -> the library's task types, where it has one
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}
# fields of LoraConfig that change the computation and have no counterpart here
FOREIGN = (
    "use_dora",
    "lora_bias",
    "fan_in_fan_out",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "use_qalora",
    "use_bdlora",
    "velora_config",
    "monteclora_config",
    "arrow_config",
    "kasa_config",
    "alora_invocation_tokens",
)
# values of init_lora_weights that do not change the base weights
PLAIN_INITS = (True, False, "gaussian", "eva", "orthogonal")
ALPHA = number("a number above 0", lambda value: value > 0)
PATTERNS = Rule("a mapping of patterns to numbers above 0", lambda value: isinstance(value, dict))
NAMES = Rule(
    "a list of names",
    lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
)
MAX_PATTERN, MAX_REPEATS = 200, 4  # bounds on a regular expression from a file


def task_type_of(model: Any) -> str | None:
    """Return the library's task type for a model; None if it has none, as for images."""
    names = (cls.__name__ for cls in type(model).__mro__)
    return next((TASK_TYPES[end] for n in names for end in TASK_TYPES if n.endswith(end)), None)


def head_modules(model: Any) -> list[str]:
    """Return the paths of the modules that make up the head of a model's task."""
    ends = ".*"
    return [path.removesuffix(ends) for path in head_patterns(model) if path.endswith(ends)]


def check_config(config: Mapping[str, Any], source: object) -> None:
    """Raise UserError for anything but plain LoRA, and for a value of the wrong type."""
    if (kind := config.get("peft_type")) != "LORA":
        raise UserError(f"{source} holds {shorten(kind)}; only LORA can be imported")
    if foreign := [name for name in FOREIGN if config.get(name)]:
        raise UserError(f"{source}: {foreign[0]} has no counterpart here")
    if (bias := config.get("bias", "none")) != "none":
        raise UserError(f"{source}: bias={shorten(bias)} has no counterpart here")
    if (init := config.get("init_lora_weights", True)) not in PLAIN_INITS:
        raise UserError(
            f"{source}: init_lora_weights={shorten(init)} changes the backbone's weights"
        )
    _check_value("lora_alpha", config.get("lora_alpha"), ALPHA, source)
    _check_value("lora_dropout", config.get("lora_dropout", 0.0), PROBABILITY, source)
    _check_value("modules_to_save", config.get("modules_to_save") or [], NAMES, source)
    _check_value("alpha_pattern", config.get("alpha_pattern") or {}, PATTERNS, source)
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        _check_value(f"alpha_pattern {pattern}", alpha, ALPHA, source)
        check_pattern(f"{source}: alpha_pattern", pattern)


def _check_value(name: str, value: Any, rule: Rule, source: object) -> None:
    if not rule.is_valid(value):
        raise UserError(f"{source}: {shorten(name)}={shorten(value)}: must be {rule.description}")


def check_pattern(key: str, pattern: str) -> None:
    """Raise UserError for a regular expression that is invalid, or may take very long to match."""
    repeats = sum(pattern.count(sign) for sign in "*+?{")
    if len(pattern) > MAX_PATTERN or repeats > MAX_REPEATS or re.search(r"\)[*+?{]", pattern):
        raise UserError(f"{key} {shorten(pattern)} is too complex")
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(f"{key} {shorten(pattern)}: {error}") from None


def alpha_of(config: Mapping[str, Any], path: str) -> float:
    """Return the alpha of the LoRA at `path`: PEFT takes the first pattern that ends the path."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    matching = (a for p, a in patterns.items() if re.match(rf"(.*\.)?({p})$", path))
    return next(matching, config["lora_alpha"])
