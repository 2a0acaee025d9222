"""The points of the design space: every choice of the four axes in a slot, and which are equal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.config.declarations import declaration_of
from unipeft_run.config.legality import SITES, check_slot, objections
from unipeft_run.config.messages import Illegal, conf_dir, options, unknown_key
from unipeft_run.config.schema import AXES, SLOTS, PartConfig, SlotConfig
from unipeft_run.config.validation import check, check_part
from unipeft_run.errors import UserError

SIZES = {"bottleneck": 8, "scale": 4.0}  # legality does not depend on them
SIZED = ("rank", "length", "scale")  # the keywords that hold them


@dataclass(frozen=True)
class Point:
    """The names of the four axes in a slot."""

    slot: str
    form: str
    insertion: str
    representation: str
    composition: str

    @property
    def words(self) -> list[str]:
        """The overrides that choose the point."""
        return [f"{axis}@{self.slot}={getattr(self, axis)}" for axis in AXES]

    def content(self, changes: Sequence[str] = ()) -> SlotConfig:
        """Compose the slot's configuration; `changes` are key=value below the slot.

        Raises UserError for an unknown key and for a value out of bounds.
        """
        if changes:
            plain = self._changed(changes)
        else:  # axis by axis, from the cache: one axis file does not refer to another
            plain = {k: v for axis in AXES for k, v in _plain(axis, getattr(self, axis)).items()}
        content = check(SlotConfig, plain, self.slot)
        check_part(self.slot, "form", content.form)
        check_part(self.slot, "composition", content.composition)
        return content

    def _changed(self, changes: Sequence[str]) -> dict[str, Any]:
        files = [axis_file(axis, getattr(self, axis)) for axis in AXES]
        merged = OmegaConf.merge({"scale": None, "mlp_width": None}, *files)
        assert isinstance(merged, DictConfig)
        for change in changes:
            _apply(merged, change, self.slot)
        try:
            return _resolved(merged)
        except OmegaConfBaseException as error:
            raise UserError(f"slot {self.slot}: {str(error).splitlines()[0]}") from None


@cache
def _plain(axis: str, name: str) -> dict[str, Any]:
    return _resolved(OmegaConf.merge(axis_file(axis, name)))


def _resolved(node: Any) -> dict[str, Any]:
    for number, example in SIZES.items():
        if OmegaConf.is_missing(node, number) or node.get(number, example) is None:
            node[number] = example
    return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


def _apply(slot: DictConfig, change: str, name: str) -> None:
    key, _, value = change.partition("=")
    known = list(_paths(OmegaConf.to_container(slot)))
    if key not in known:
        raise UserError(unknown_key(f"{name}.{key}", [f"{name}.{path}" for path in known]))
    OmegaConf.update(slot, key, OmegaConf.from_dotlist([f"value={value}"]).value)


def _paths(node: Any, path: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{path}{key}"
        if isinstance(value, dict):
            yield from _paths(value, f"{path}{key}.")


@cache
def axis_file(axis: str, name: str) -> DictConfig:
    """Load a file of conf/ on top of the files that its defaults name."""
    own = OmegaConf.load(conf_dir() / axis / f"{name}.yaml")
    assert isinstance(own, DictConfig)
    below = [axis_file(axis, base) for base in own.pop("defaults", [])]
    merged = OmegaConf.merge(*below, own)
    assert isinstance(merged, DictConfig)
    return merged


@cache
def headline(axis: str, name: str) -> str:
    """Read the description of an axis value: the comment on its file's first line."""
    text = (conf_dir() / axis / f"{name}.yaml").read_text(encoding="utf-8")
    return text.partition("\n")[0].removeprefix("#").strip()


def combinations(slot: str, given: Mapping[str, str] | None = None) -> Iterator[Point]:
    """Yield every point of the slot, legal or not; the axes in `given` are fixed."""
    choices = {axis: options(axis) for axis in AXES}
    choices["representation"] = [r for r in choices["representation"] if _belongs(r, slot)]
    choices |= {axis: [name] for axis, name in (given or {}).items()}
    for form, insertion, representation, composition in itertools.product(*choices.values()):
        yield Point(slot, form, insertion, representation, composition)


def _belongs(representation: str, slot: str) -> bool:
    sites = axis_file("representation", representation).representation.sites
    return all(site in SITES[slot] for site in sites)


def reasons(point: Point, changes: Sequence[str] = ()) -> list[str]:
    """List the reasons why the point is illegal; none if it is legal."""
    content = point.content(changes)
    try:
        check_slot(point.slot, content)
    except Illegal as first:
        sites = content.representation.sites
        if not set(sites) <= set(SITES[point.slot]):
            return [str(first)]
        return [sentence for site in sites for sentence in objections(site, content)]
    return []


@cache
def legal(slot: str) -> tuple[Point, ...]:
    """List the legal points of the slot."""
    return tuple(point for point in combinations(slot) if not reasons(point))


def function(content: SlotConfig, family: str) -> str:
    """Describe the function of the stored tensors on backbones of `family`.

    Points with the same description store the same tensors and compute the same from them.
    """
    table = FAMILIES[family]
    form, composition = _function_of(content.form), _function_of(content.composition)
    if form.get("query") == "reference":
        form["query"] = table.reference_query[form["activation"]]
    if content.composition.name == "Scaled" and content.composition.keywords.get("scale") == 1:
        composition["_target_"] = composition["_target_"].replace("Scaled", "Add")
    place = content.representation.model_dump(exclude={"sites"})
    taps = [_tap(table, site, content.insertion) for site in content.representation.sites]
    parts = (form, composition, content.insertion, place, taps)
    return repr([sorted(part.items()) if isinstance(part, dict) else part for part in parts])


def _function_of(part: PartConfig) -> dict[str, Any]:
    """A form or composition without sizes and without what acts only in training."""
    return {k: v for k, v in unsized(part).items() if k not in training_only(part)}


def training_only(part: PartConfig) -> Mapping[str, str]:
    """The keywords that leave the function of the stored tensors unchanged, with the reasons."""
    declared = declaration_of(part.target)
    return declared.attributes.get("training_only", {}) if declared else {}


def unsized(value: Any) -> Any:
    """An axis of a slot without its sizes."""
    if isinstance(value, PartConfig):
        return {"_target_": value.target} | {
            key: kept for key, kept in value.keywords.items() if key not in SIZED
        }
    return value


def _tap(table: Any, site: str, insertion: str) -> str:
    """Where x is read, if it is read, and where h is written."""
    taps = {**table.attention, **table.ffn}.get(site, site)
    return str(taps.rpartition(" -> ")[2] if insertion == "sequential" else taps)


def twins(content: SlotConfig, slot: str) -> dict[Point, list[str]]:
    """Find the points equal to `content`, each with the families where it is."""
    found: dict[Point, list[str]] = {}
    for family in FAMILIES:
        mine = function(content, family)
        for point, theirs in _functions(slot, family):
            if theirs == mine:
                found.setdefault(point, []).append(family)
    return found


@cache
def _functions(slot: str, family: str) -> tuple[tuple[Point, str], ...]:
    return tuple((point, function(point.content(), family)) for point in legal(slot))


def distinct(slot: str, family: str) -> int:
    """Count the different functions among the legal points of the slot."""
    return len({theirs for _, theirs in _functions(slot, family)})


def configurations(count: Mapping[str, int]) -> int:
    """Count the ways to fill the slots, each with one of its points or left empty."""
    product = 1
    for slot in SLOTS:
        product *= count[slot] + 1
    return product - 1
