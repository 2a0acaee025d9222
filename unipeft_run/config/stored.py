"""Read the configuration of a run folder, as data: nothing in it is executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unipeft_run.config.declarations import PACKAGE, is_allowed, is_extension, is_ours
from unipeft_run.config.resolve import resolve_data
from unipeft_run.config.schema import RunConfig
from unipeft_run.errors import UserError
from unipeft_run.runs.reading import read_yaml

# Modules of version 0.1 named in stored configurations -> their package today.
MOVED = {"tasks": "data", "forms": "deltas", "compositions": "deltas"}


def load(folder: Path, allow: str | Sequence[str] = ()) -> RunConfig:
    """Read and validate the configuration of a run folder.

    Every `_target_` must name a class of this package or of an extension folder, or start with a
    prefix in `allow`. Raises UserError.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(f"{folder} is not a run folder: it has no config.yaml")
    data = _read(file)
    for key, value in _leaves(data):
        if key == "_target_" and not _is_trusted(str(value), allow):
            raise UserError(
                f"{file} names the class {value}; if you trust it, add {_how_to_trust(str(value))}"
            )
        if isinstance(value, str) and "${" in value:
            raise UserError(f"{file} holds an interpolation, {value}; stored values must be plain")
    try:
        return resolve_data(data)
    except UserError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} is not a complete configuration: {reason}") from None


def _is_trusted(target: str, allow: str | Sequence[str]) -> bool:
    return is_ours(target) or is_extension(target) or is_allowed(target, allow)


def _how_to_trust(target: str) -> str:
    """Return the options that trust a class; an extension folder has a module in a package."""
    package, *names = target.split(".")
    folder = package if package and Path(package).is_dir() else "FOLDER"
    in_module = len(names) > 1
    return f"--config-dir {folder}, or --allow {target}" if in_module else f"--allow {target}"


def _read(file: Path) -> dict[str, Any]:
    data = read_yaml(file)
    if not data:
        raise UserError(f"{file} is damaged: it holds no configuration")
    return upgrade(data)


def upgrade(data: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a stored configuration to the current version, keeping its original behaviour."""
    data = dict(_with_current_targets(dict(data)))
    evaluation, recipe = data.get("evaluation"), data.get("recipe")
    decoding = evaluation.get("decoding") if isinstance(evaluation, dict) else None
    if isinstance(decoding, dict):
        decoding.setdefault("rules", "transformers")  # version 0.1 called transformers' generate
    if isinstance(recipe, dict):
        recipe.setdefault("accumulation_weighting", "equal")
    return data


def _with_current_targets(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_current_targets(value) for value in node]
    if not isinstance(node, dict):
        return node
    upgraded = {key: _with_current_targets(value) for key, value in node.items()}
    if "_target_" in upgraded:
        upgraded["_target_"] = _current_target(upgraded["_target_"])
    return upgraded


def _current_target(target: Any) -> Any:
    package, _, rest = str(target).partition(".")
    moved = MOVED.get(rest.partition(".")[0]) if package == PACKAGE.name else None
    return f"{package}.{moved}.{rest}" if moved else target


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, str(name))
    else:
        yield key, node
