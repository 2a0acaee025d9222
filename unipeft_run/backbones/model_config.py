"""Build a transformers configuration from config.json and `backbone.config`, both as data.

Only the fields in the family's table are used. transformers' own loader is not: it follows
`auto_map` to code, and takes loading options from either source.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.backbones.family import Family
from unipeft_run.backbones.files import find_file, read_object, reporting
from unipeft_run.backbones.shapes import shapes_of, size_of
from unipeft_run.config.messages import shorten, unknown_choice, unknown_key
from unipeft_run.errors import UserError

CONFIG = "config.json"
PREFIX = "backbone.config."
REFUSED = {  # in config.json: what it asks for
    "auto_map": "code from the model folder, which is never executed",
    "quantization_config": "quantised weights, which are not supported",
}
LOADING = (  # options of transformers' loader, for a better message than the nearest field
    "trust_remote_code",
    "code_revision",
    "auto_map",
    "attn_implementation",
    "quantization_config",
    "torch_dtype",
    "dtype",
    "device_map",
    "use_safetensors",
    "revision",
    "subfolder",
    "token",
)
MAX_LABELS = 10_000
MAX_PARAMETERS = 10**11


def read_config(
    source: str, family: str, changes: Mapping[str, Any], num_labels: int | None = None
) -> Any:
    """Build the configuration of `source`, a folder or hub id, with `changes` to its fields.

    `num_labels` sizes the classifier; by default config.json does. Raises UserError if config.json
    is missing, damaged or of another family, and for a field or value that is not allowed.
    """
    return read_config_file(find_config(source), family, changes, num_labels)


def find_config(source: str) -> Path:
    """Return the path of config.json in `source`, a folder or hub id. Raises UserError."""
    with reporting(source):
        file = find_file(source, CONFIG)
    if file is None:
        raise UserError(f"{source} holds no {CONFIG}")
    return file


def read_config_file(
    file: Path,
    family: str | None = None,
    changes: Mapping[str, Any] | None = None,
    num_labels: int | None = None,
) -> Any:
    """Build the configuration in `file`, by default of the family that it names.

    Raises UserError, as `read_config` does.
    """
    content = read_model_json(file)
    table = family_in(content, file, family)
    fields = _fields_of(content, table, file)
    labels = num_labels or _num_labels(content, file)
    return build_config(table, {**fields, **check_fields(changes or {}, table)}, str(file), labels)


def read_model_json(file: Path) -> dict[str, Any]:
    """Return the content of a config.json. Raises UserError if it asks for code."""
    content = read_object(file)
    for key, reason in REFUSED.items():
        if content.get(key):
            raise UserError(f"{file}: {key} asks for {reason}")
    return content


def family_in(content: Mapping[str, Any], file: Path, family: str | None = None) -> Family:
    """Return the family that a config.json names. Raises UserError if it is not `family`."""
    found = content.get("model_type")
    if not isinstance(found, str) or found not in FAMILIES:
        raise UserError(unknown_choice(f"{file}: model_type", found, FAMILIES))
    if family not in (None, found):
        raise UserError(f"{file}: model_type={found}, but the backbone's family is {family}")
    return FAMILIES[found]


def check_fields(changes: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """Return the fields of `backbone.config` under the family's own names.

    Raises UserError for an unknown key and for a value that breaks its rule.
    """
    checked = {}
    for key, value in changes.items():
        name = family.aliases.get(key, key)
        if name in LOADING:
            raise UserError(
                f"there is no key {PREFIX}{key}: how a model is loaded cannot be configured; "
                f"{PREFIX}* sets fields such as {family.hidden_dropout}"
            )
        if name not in family.fields:
            known = [f"{PREFIX}{field}" for field in (*family.fields, *family.aliases)]
            raise UserError(unknown_key(f"{PREFIX}{key}", known))
        _check_value(f"{PREFIX}{key}", name, value, family)
        checked[name] = value
    return checked


def _check_value(where: str, name: str, value: Any, family: Family) -> None:
    rule = family.fields[name]
    if not rule.is_valid(value):
        raise UserError(f"{where}={shorten(value)}: must be {rule.description}")


def _fields_of(content: Mapping[str, Any], family: Family, file: Path) -> dict[str, Any]:
    """The fields of config.json that the family's table lists; the rest is not used."""
    for key, value in family.fixed.items():
        if content.get(key, value) != value:
            raise UserError(
                f"{file}: {key}={shorten(content[key])} is not supported: must be {value}"
            )
    named = {family.aliases.get(key, key): key for key in content}
    named |= {key: key for key in content}  # a field's own name takes precedence over its alias
    fields = {}
    for name in family.fields:
        if name in named:
            key = named[name]
            _check_value(f"{file}: {key}", name, content[key], family)
            fields[name] = content[key]
    return fields


def _num_labels(content: Mapping[str, Any], file: Path) -> int | None:
    """The size of the classifier by config.json, or None."""
    labels = content.get("id2label")
    number = len(labels) if isinstance(labels, dict) else content.get("num_labels")
    if number is None:
        return None
    if type(number) is not int or not 1 <= number <= MAX_LABELS:
        raise UserError(f"{file}: num_labels={shorten(number)}: must be from 1 to {MAX_LABELS:,}")
    return number


def build_config(
    family: Family, fields: Mapping[str, Any], source: str, num_labels: int | None = None
) -> Any:
    """Build the transformers configuration of `fields`. Raises UserError if they contradict."""
    import transformers

    labels = {"num_labels": num_labels} if num_labels else {}
    with reporting(source):
        config = getattr(transformers, family.config_class)(**fields, **labels)
    _check_heads(family, config, source)
    _check_tokens(family, config, source)
    parameters = size_of(shapes_of(config))
    if parameters > MAX_PARAMETERS:
        raise UserError(
            f"{source}: these sizes make {parameters:,} parameters; "
            f"at most {MAX_PARAMETERS:,} are supported"
        )
    return config


def _check_heads(family: Family, config: Any, source: str) -> None:
    for key in dict.fromkeys(family.num_heads.values()):
        width, heads = config.hidden_size, getattr(config, key)
        if width % heads:
            raise UserError(
                f"{source}: {key}={heads} does not divide the hidden size {width} "
                f"({PREFIX}{key} overrides it)"
            )


def _check_tokens(family: Family, config: Any, source: str) -> None:
    for key in family.fields:
        token = getattr(config, key) if key.endswith("token_id") else None
        if token is not None and token >= config.vocab_size:
            raise UserError(
                f"{source}: {key}={token} is outside the vocabulary: vocab_size={config.vocab_size}"
            )
    before = family.positions_from
    if before and config.max_position_embeddings <= getattr(config, before) + 1:
        raise UserError(
            f"{source}: max_position_embeddings={config.max_position_embeddings} leaves no "
            f"position: counting begins after {before}={getattr(config, before)}"
        )
