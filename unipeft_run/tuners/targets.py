"""Our names of modules in the lists of a PEFT configuration, and the modules of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from types import SimpleNamespace
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from unipeft_run.backbones.families import family_of, head_patterns
from unipeft_run.backbones.sites import find_sites
from unipeft_run.config.tuners import EMBEDDING, LINEAR, MODULES, NORMS
from unipeft_run.errors import UserError
from unipeft_run.tuners.library import converted_errors

# attention's output is modified after a dropout; its input is the input of the projection
READ_AT = {"attn.output": "attn.context"}


def resolve_modules(model: nn.Module, config: Mapping[str, Any]) -> dict[str, Any]:
    """Replace our names of modules in the lists and the keys of `config` by the modules' paths.

    In `target_modules`, they stand for the modules in `layers_to_transform`, if that is given.
    Raises UserError if no module is left, and for two values of one module.
    """
    resolved = {key: _resolve(model, key, value) for key, value in config.items()}
    targets, layers = config.get("target_modules"), config.get("layers_to_transform")
    if targets is None or not _has_names(targets) or layers in (None, []):
        return resolved
    key, is_adapted = f"peft.config.layers_to_transform={layers}", _in_layers(config)
    with converted_errors(key):
        paths = [path for path in resolved["target_modules"] if path in targets or is_adapted(path)]
    if not paths:
        raise UserError(f"{key}: no module of peft.config.target_modules is in these layers")
    return {**resolved, "target_modules": paths}


def _has_names(value: Any) -> bool:
    return isinstance(value, list | tuple | dict) and bool(set(map(str, value)) & set(MODULES))


def _resolve(model: nn.Module, key: str, value: Any) -> Any:
    if not _has_names(value):
        return value
    paths = {name: find_modules(model, name) if name in MODULES else [name] for name in value}
    if not isinstance(value, dict):
        return sorted({path for found in paths.values() for path in found})
    resolved: dict[str, Any] = {}  # the library takes the first key that matches
    for name, found in paths.items():
        for path in found:
            if resolved.setdefault(path, value[name]) != value[name]:
                raise UserError(
                    f"peft.config.{key}.{name}={value[name]}: {path} has the value "
                    f"{resolved[path]} already; give one value for it"
                )
    return resolved


def _in_layers(config: Mapping[str, Any]) -> Callable[[str], bool]:
    """Return the library's rule, which it applies to endings of paths but not to whole paths."""
    from peft.tuners.tuners_utils import check_target_module_exists

    layers = {key: config.get(key) for key in ("layers_to_transform", "layers_pattern")}

    def is_adapted(path: str) -> bool:
        rule = SimpleNamespace(target_modules=[path.rpartition(".")[2]], **layers)
        return bool(check_target_module_exists(rule, path))

    return is_adapted


def find_targets(model: Any, config: Any) -> list[str]:
    """Return the paths that the library's configuration `config` selects by `target_modules`."""
    from peft.tuners.tuners_utils import check_target_module_exists

    rule, paths = copy(config), [path for path, _ in model.named_modules() if path]
    if str(rule.target_modules).lower() == "all-linear":
        output = model.get_output_embeddings()
        named = ((path, model.get_submodule(path)) for path in paths)
        rule.target_modules = {
            path for path, m in named if isinstance(m, nn.Linear | Conv1D) and m is not output
        }
    return [path for path in paths if check_target_module_exists(rule, path)]


def leave_out_head(model: Any, config: Any) -> None:
    """Take the head of a task out of `target_modules` of the library's configuration.

    The library knows the head by its task type only, and cannot load an adapted one that is stored
    as a whole. Raises UserError for a target that selects nothing but modules of the head.
    """
    targets = getattr(config, "target_modules", None)
    if not targets or not head_patterns(model):
        return
    selected = find_targets(model, config)
    in_head = select_in_head(model, selected)
    if not in_head:
        return
    for target in [targets] if isinstance(targets, str) else sorted(targets):
        alone = copy(config)
        alone.target_modules = target if isinstance(targets, str) else [target]
        found = find_targets(model, alone)
        if found and set(found) <= set(in_head):
            raise refuse_head(target)
    config.target_modules = set(selected) - set(in_head)


def select_in_head(model: Any, paths: Iterable[str]) -> list[str]:
    """Return those of `paths` that are the head of a task, or in it."""
    heads = tuple(pattern.removesuffix("*") for pattern in head_patterns(model))
    return [path for path in paths if f"{path}.".startswith(heads)]


def refuse_head(name: str) -> UserError:
    """Return the error for a target in the head of a task."""
    return UserError(
        f"peft.config: {name} is in the head of the task, which cannot be adapted; "
        "head=trained trains its own weights"
    )


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
