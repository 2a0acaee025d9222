"""Override fields of a model's configuration. Three of them set the rotary positions together.

transformers 5 reads `rope_theta` only where `rope_parameters` lacks it, and a `rope_scaling` or
`rope_parameters` without it means the default base.
"""

from collections.abc import Mapping
from typing import Any

BASE, PARAMETERS, SCALING = "rope_theta", "rope_parameters", "rope_scaling"
TYPES = ("rope_type", "type")  # the second is that of older files


def override(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `fields` with `changes`; rotary parameters that the changes leave out are kept."""
    merged = {**fields, **changes}
    if not {BASE, PARAMETERS, SCALING} & changes.keys():
        return merged
    rotary = _change(_parameters(fields), changes)
    rest = {key: merged[key] for key in merged if key not in (BASE, PARAMETERS, SCALING)}
    return {**rest, PARAMETERS: rotary} if rotary else rest


def _parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return all rotary parameters as one mapping, with the precedence of transformers."""
    base = {BASE: fields[BASE]} if BASE in fields else {}
    return {**base, **(fields.get(SCALING) or fields.get(PARAMETERS) or {})}


def _change(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change rotary parameters; those of another type of scaling do not stay."""
    removed = changes.get(SCALING, before) is None and not changes.get(PARAMETERS)
    new = _parameters({key: changes[key] for key in changes if key != BASE})
    if removed or (_type_of(new) and _type_of(new) != _type_of(before)):
        before = {key: before[key] for key in before if key == BASE}
    base = {BASE: changes[BASE]} if BASE in changes else {}
    return {**before, **new, **base}


def _type_of(parameters: Mapping[str, Any]) -> Any:
    return next((parameters[key] for key in TYPES if key in parameters), None)
