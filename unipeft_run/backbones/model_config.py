"""Build a transformers configuration from config.json and `backbone.config`, read as data.

Only the fields in the family's table are used. transformers' own loader is avoided, because it
would execute the code that `auto_map` names and accept loading options from either source.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipeft_run.backbones.families import FAMILIES, describe_variant, model_types
from unipeft_run.backbones.family import Family
from unipeft_run.backbones.files import convert_errors, find_file, read_object
from unipeft_run.backbones.rope import override
from unipeft_run.backbones.shapes import shapes_of, size_of
from unipeft_run.config.messages import shorten, unknown_choice, unknown_key
from unipeft_run.errors import UserError

CONFIG = "config.json"
PREFIX = "backbone.config."
REFUSED = {  # key of config.json -> what it asks for
    "auto_map": "code from the model folder, which is never executed",
    "quantization_config": "quantised weights, which are not supported",
}
LOADING = (  # options of transformers' loader, which get their own error message
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
    source: str, family: str | None, changes: Mapping[str, Any], num_labels: int | None = None
) -> Any:
    """Build the configuration of `source`, a folder or hub id, with `changes` to its fields.

    `family` and `num_labels`, the classifier's size, default to those in config.json. Raises
    UserError if config.json is missing, damaged or of another family, and for a field or value that
    is not allowed.
    """
    return read_config_file(find_config(source), family, changes, num_labels)


def find_config(source: str) -> Path:
    """Return the path of config.json in `source`, a folder or hub id. Raises UserError."""
    with convert_errors(source):
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
    """Build the configuration in `file`; `family` defaults to the one named there.

    Raises UserError, as `read_config` does.
    """
    content = read_model_json(file)
    table = family_in(content, file, family)
    fields = _fields_of(content, table, file)
    labels = num_labels or _num_labels(content, file)
    fields = override(fields, check_fields(changes or {}, table))
    return build_config(table, fields, str(file), labels)


def read_model_json(file: Path) -> dict[str, Any]:
    """Read a config.json. Raises UserError if it asks for code or quantised weights."""
    content = read_object(file)
    for key, reason in REFUSED.items():
        if content.get(key):
            raise UserError(f"{file}: {key} asks for {reason}")
    return content


def family_in(content: Mapping[str, Any], file: Path, family: str | None = None) -> Family:
    """Return the family named in a config.json. Raises UserError if it is not `family`."""
    found = _find_family(content, file)
    if family not in (None, found.name):
        raise UserError(
            f"{file}: model_type={content['model_type']}, but the backbone's family is {family}: "
            "to use this one, describe it with `unipeft new backbone NAME --path DIR`"
        )
    return found


def _find_family(content: Mapping[str, Any], where: object) -> Family:
    """Return the family of a config.json. Raises UserError, naming `where`, if there is none."""
    for family in FAMILIES.values():
        if family.fits(content):
            return family
    name = content.get("model_type")
    if name not in model_types():
        raise UserError(unknown_choice(f"{where}: model_type", name, model_types()))
    raise UserError(f"{where}: {describe_variant(content, name)}")


def check_fields(changes: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """Return the fields of `backbone.config` under the family's own names.

    Raises UserError for an unknown key and for an invalid value.
    """
    checked = {}
    for key, value in changes.items():
        name = family.aliases.get(key, key)
        if name in LOADING:
            raise UserError(
                f"there is no key {PREFIX}{key}: how a model is loaded cannot be configured; "
                f"{PREFIX}* sets fields such as {next(iter(family.fields))}"
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
    """Return the fields of config.json that are in the family's table; others are ignored.

    Fields of a part of the configuration get dotted names.
    """
    content = flatten(content, family)
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


def flatten(content: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """Replace the parts of a configuration by their fields, with dotted names."""
    parts = {name.partition(".")[0] for name in family.fields if "." in name}
    flat = {key: value for key, value in content.items() if key not in parts}
    for part in parts:
        fields = content.get(part)
        for key, value in fields.items() if isinstance(fields, Mapping) else ():
            flat[f"{part}.{key}"] = value
    return flat


def _nest(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `flatten`."""
    nested: dict[str, Any] = {}
    for name, value in fields.items():
        part, dot, key = name.partition(".")
        if dot:
            nested.setdefault(part, {})[key] = value
        else:
            nested[name] = value
    return nested


def get_field(config: Any, name: str) -> Any:
    """Return a field of a transformers configuration, or None; the name may be dotted."""
    for part in name.split("."):
        config = getattr(config, part, None)
    return config


def _num_labels(content: Mapping[str, Any], file: Path) -> int | None:
    """Return the number of labels in config.json, or None."""
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
    """Build the transformers configuration. Raises UserError if fields contradict each other."""
    import transformers

    labels = {"num_labels": num_labels} if num_labels else {}
    with convert_errors(source):
        config = getattr(transformers, family.config_class)(**_nest(fields), **labels)
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
    for stack in family.stacks.values():
        sizes, key = stack.read(config), stack.heads
        if not stack.head_width and sizes.width % sizes.heads:
            raise UserError(
                f"{source}: {key}={sizes.heads} does not divide the hidden size {sizes.width} "
                f"({PREFIX}{key} overrides it)"
            )
        if sizes.heads % sizes.kv_heads:
            raise UserError(
                f"{source}: {stack.kv_heads}={sizes.kv_heads} does not divide {key}={sizes.heads}"
            )


def _check_tokens(family: Family, config: Any, source: str) -> None:
    for key in family.fields:
        part, dot, name = key.rpartition(".")
        if not name.endswith("token_id"):
            continue
        size = get_field(config, f"{part}{dot}vocab_size")
        value = get_field(config, key)
        for token in value if isinstance(value, list) else [value]:
            if token is not None and token >= size:
                raise UserError(
                    f"{source}: {key}={token} is outside the vocabulary: vocab_size={size}"
                )
    field = family.positions_from
    if field and config.max_position_embeddings <= getattr(config, field) + 1:
        raise UserError(
            f"{source}: max_position_embeddings={config.max_position_embeddings} leaves no "
            f"position: positions start after {field}={getattr(config, field)}"
        )
