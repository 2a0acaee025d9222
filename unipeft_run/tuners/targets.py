"""Our names of modules in the lists of a PEFT configuration, and the modules of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from unipeft_run.backbones.families import family_of
from unipeft_run.backbones.sites import find_sites
from unipeft_run.config.tuners import EMBEDDING, LINEAR, MODULES, NORMS

# attention's output is modified after a dropout; its input is the input of the projection
READ_AT = {"attn.output": "attn.context"}


def resolve_modules(model: nn.Module, config: Mapping[str, Any]) -> dict[str, Any]:
    """Replace our names of modules in every list of `config` by the paths of the modules."""
    return {key: _resolve(model, value) for key, value in config.items()}


def _resolve(model: nn.Module, value: Any) -> Any:
    if not isinstance(value, list | tuple) or not set(map(str, value)) & set(MODULES):
        return value
    paths = [find_modules(model, name) if name in MODULES else [name] for name in value]
    return sorted({path for found in paths for path in found})


def find_modules(model: Any, name: str) -> list[str]:
    """Return the paths of the modules that one of our names stands for."""
    named = dict(model.named_modules())
    if name == EMBEDDING:
        embedding = model.get_input_embeddings()
        return [path for path, module in named.items() if module is embedding]
    if name == NORMS:
        return [path for path, module in named.items() if type(module).__name__.endswith("Norm")]
    sites = find_sites(model, model.config, sites=[READ_AT.get(name, name)])
    return list(dict.fromkeys(site.write.path for site in sites))


def name_modules(model: Any) -> dict[str, str]:
    """Return our name of each module that has one, by its path."""
    table = family_of(model.config)
    names: dict[str, list[str]] = {}
    for name in MODULES:
        if name not in LINEAR or table.taps(name) is not None:
            for path in find_modules(model, name):
                names.setdefault(path, []).append(name)
    return {path: "+".join(found) for path, found in names.items()}
