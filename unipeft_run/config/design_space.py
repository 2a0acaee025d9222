"""The points of the design space: which choices of the four axes are legal or equivalent."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.backbones.family import Family
from unipeft_run.config.declarations import declaration_of
from unipeft_run.config.legality import SITES, check_slot, objections
from unipeft_run.config.messages import (
    Illegal,
    dotted_keys,
    find_option,
    options,
    shorten,
    unknown_key,
)
from unipeft_run.config.schema import AXES, SLOTS, PartConfig, SlotConfig
from unipeft_run.config.validation import check, check_part
from unipeft_run.config.yaml_files import load_config
from unipeft_run.errors import UserError
from unipeft_run.extensions import config_dirs

SIZES = {"bottleneck": 8, "scale": 4.0}  # legality does not depend on them
SITES_KEY = "representation.sites"
SIZE_KEYWORDS = ("rank", "length", "scale")  # constructor keywords that hold them


@dataclass(frozen=True)
class Point:
    """One point of the design space: a slot and the chosen value of each axis."""

    slot: str
    form: str
    insertion: str
    representation: str
    composition: str

    @property
    def overrides(self) -> list[str]:
        """Overrides that select the point on a command line."""
        return [f"{axis}@{self.slot}={getattr(self, axis)}" for axis in AXES]

    def compose(self, overrides: Sequence[str] = ()) -> SlotConfig:
        """Compose the slot's configuration; `overrides` are key=value relative to the slot.

        Raises UserError for an unknown key and for a value out of bounds.
        """
        if not overrides:
            return _compose(self, config_dirs())
        return _check(self.slot, self._compose_plain(overrides))

    def _compose_plain(self, overrides: Sequence[str]) -> dict[str, Any]:
        files = [load_axis_file(axis, getattr(self, axis)) for axis in AXES]
        merged = OmegaConf.merge({"scale": None, "mlp_width": None}, *files)
        assert isinstance(merged, DictConfig)
        for override in overrides:
            _apply(merged, override, self.slot)
        try:
            return _resolve(merged)
        except OmegaConfBaseException as error:
            raise UserError(f"slot {self.slot}: {str(error).splitlines()[0]}") from None


@cache
def _compose(point: Point, folders: tuple[Path, ...]) -> SlotConfig:
    """Compose a point axis by axis: the files of axes do not refer to each other."""
    axes = [_plain(axis, getattr(point, axis), folders) for axis in AXES]
    return _check(point.slot, {key: value for axis in axes for key, value in axis.items()})


def _check(name: str, plain: dict[str, Any]) -> SlotConfig:
    slot = check(SlotConfig, plain, name)
    check_part(name, "form", slot.form)
    check_part(name, "composition", slot.composition)
    return slot


@cache
def _plain(axis: str, name: str, folders: tuple[Path, ...]) -> dict[str, Any]:
    """Load the file of an axis value as plain data. `folders`: those where files are looked up."""
    del folders
    try:
        return _resolve(OmegaConf.merge(load_axis_file(axis, name)))
    except OmegaConfBaseException as error:
        raise UserError(f"{find_option(axis, name)}: {str(error).splitlines()[0]}") from None


def _resolve(node: Any) -> dict[str, Any]:
    for key, example in SIZES.items():
        if OmegaConf.is_missing(node, key) or node.get(key, example) is None:
            node[key] = example
    return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


def _apply(slot: DictConfig, override: str, name: str) -> None:
    key, _, value = override.partition("=")
    known = list(dotted_keys(OmegaConf.to_container(slot)))
    if key not in known:
        raise UserError(unknown_key(f"{name}.{key}", [f"{name}.{path}" for path in known]))
    try:
        parsed = OmegaConf.from_dotlist([f"value={value}"]).value
    except (OmegaConfBaseException, YAMLError):
        raise UserError(f"{name}.{key}={shorten(value)} is not a value in YAML") from None
    OmegaConf.update(slot, key, parsed)


def load_axis_file(axis: str, name: str) -> DictConfig:
    """Load the file of an axis value, merged over the files in its defaults list."""
    return _load_file(find_option(axis, name))


@cache
def _load_file(file: Path) -> DictConfig:
    own = load_config(file)
    axis = file.parent.name
    bases = [
        load_axis_file(axis, base) for base in own.pop("defaults", None) or [] if base != "_self_"
    ]
    merged = OmegaConf.merge(*bases, own)
    assert isinstance(merged, DictConfig)
    return merged


@cache
def read_headline(axis: str, name: str) -> str:
    """Read the description of a choice: the first comment of its file, but for `@package`.

    Of a text that continues on the next line, the sentences that end on the first.
    """
    lines = find_option(axis, name).read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith("# @package")] or [""]
    first = lines[0].removeprefix("#").strip()
    is_continued = lines[1:2] and lines[1].startswith("#") and not first.endswith(".")
    whole = re.match(r"(.*\.) [A-Z`]", first) if is_continued else None
    return whole[1] if whole else first


def combinations(slot: str, fixed: Mapping[str, str] | None = None) -> Iterator[Point]:
    """Yield every point of the slot, legal or not; the axes in `fixed` do not vary."""
    choices = {axis: options(axis) for axis in AXES}
    choices["representation"] = [r for r in choices["representation"] if _is_in_slot(r, slot)]
    choices |= {axis: [name] for axis, name in (fixed or {}).items()}
    for form, insertion, representation, composition in itertools.product(*choices.values()):
        yield Point(slot, form, insertion, representation, composition)


def _is_in_slot(representation: str, slot: str) -> bool:
    sites = OmegaConf.select(load_axis_file("representation", representation), SITES_KEY)
    if sites is None:
        raise UserError(f"{find_option('representation', representation)}: gives no {SITES_KEY}")
    return all(site in SITES[slot] for site in sites)


def find_objections(point: Point, overrides: Sequence[str] = ()) -> list[str]:
    """List the reasons why the point is illegal; [] if it is legal."""
    slot = point.compose(overrides)
    try:
        check_slot(point.slot, slot)
    except Illegal as first:
        sites = slot.representation.sites
        if not set(sites) <= set(SITES[point.slot]):
            return [str(first)]
        return [sentence for site in sites for sentence in objections(site, slot)]
    return []


def legal_points(slot: str) -> tuple[Point, ...]:
    """List the legal points of the slot, those of the extension folders included."""
    return _find_legal(slot, config_dirs())


@cache
def _find_legal(slot: str, folders: tuple[Path, ...]) -> tuple[Point, ...]:
    del folders  # part of the cache key, because the choices depend on them
    return tuple(point for point in combinations(slot) if not find_objections(point))


def describe_function(slot: SlotConfig, family: str) -> str:
    """Describe what the slot computes from its stored tensors on backbones of `family`.

    Points with the same description store the same tensors and compute the same function of them.
    """
    table = FAMILIES[family]
    form, composition = _inference_part(slot.form), _inference_part(slot.composition)
    if form.get("query") == "reference":
        form["query"] = table.reference_query[form["activation"]]
    if slot.composition.name == "Scaled" and slot.composition.keywords.get("scale") == 1:
        composition["_target_"] = composition["_target_"].replace("Scaled", "Add")
    place = slot.representation.model_dump(exclude={"sites"})
    reads = _reads_input(slot.form)
    taps = [_tap(table, site, slot.insertion, reads) for site in slot.representation.sites]
    parts = (form, composition, place, taps)
    return repr([sorted(part.items()) if isinstance(part, dict) else part for part in parts])


def _inference_part(part: PartConfig) -> dict[str, Any]:
    """Return a form or composition without its sizes and its training-only keywords."""
    return {k: v for k, v in drop_sizes(part).items() if k not in training_only(part)}


def training_only(part: PartConfig) -> Mapping[str, str]:
    """Return the keywords that do not change what the stored tensors compute, with the reasons."""
    declared = declaration_of(part.target)
    return declared.attributes.get("training_only", {}) if declared else {}


def drop_sizes(value: Any) -> Any:
    """Return the value of an axis without its sizes."""
    if isinstance(value, PartConfig):
        return {"_target_": value.target} | {
            key: kept for key, kept in value.keywords.items() if key not in SIZE_KEYWORDS
        }
    return value


def _reads_input(form: PartConfig) -> bool:
    """Return whether the form's change depends on its input, so that the insertion matters."""
    declared = declaration_of(form.target)
    return bool(declared.attributes.get("reads", True)) if declared else True


def _tap(table: Family, site: str, insertion: str, reads: bool) -> str:
    """Return where u is read, if the form reads it, and where h is written."""
    read, _, write = (table.taps(site) or site).rpartition(" -> ")
    if not reads:
        return write
    if insertion == "residual":
        read = table.residual[site.partition(".")[0]]
    return f"{write if insertion == 'sequential' else read} -> {write}"


def equal_points(slot: SlotConfig, name: str) -> dict[Point, list[str]]:
    """Find the points of slot `name` that equal `slot`, each with the families where they do."""
    families: dict[Point, list[str]] = {}
    for family in FAMILIES:
        function = describe_function(slot, family)
        for point, other in _describe_functions(name, family, config_dirs()):
            if other == function:
                families.setdefault(point, []).append(family)
    return families


@cache
def _describe_functions(
    slot: str, family: str, folders: tuple[Path, ...]
) -> tuple[tuple[Point, str], ...]:
    del folders
    return tuple(
        (point, describe_function(point.compose(), family)) for point in legal_points(slot)
    )


def count_distinct(slot: str, family: str) -> int:
    """Count the distinct functions among the legal points of the slot."""
    return len({text for _, text in _describe_functions(slot, family, config_dirs())})


def count_configurations(count: Mapping[str, int]) -> int:
    """Count the ways to fill at least one slot, given the number of points of each slot."""
    return prod(count[slot] + 1 for slot in SLOTS) - 1
