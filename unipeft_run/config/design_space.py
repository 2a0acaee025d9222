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
from unipeft_run.config.legality import SITES, check_slot, is_ours, objections
from unipeft_run.config.messages import Illegal, conf_dir, options
from unipeft_run.config.rules import check_values
from unipeft_run.config.schema import AXES, SLOTS, Slot
from unipeft_run.config.sections import check_slots
from unipeft_run.errors import UserError

SIZES = {"bottleneck": 8, "scale": 4.0}  # whatever they are, a point is legal or not
SIZED = ("rank", "length", "scale")  # the arguments that take them
# arguments of our forms that leave the function of the stored numbers as it is, and why
IN_TRAINING = {
    "init": "it is where training starts",
    "dropout": "dropout acts in training alone",
    "input_dropout": "dropout acts in training alone",
    "mlp_width": "the MLP makes P_k and P_v in training and is not stored",
}


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
        return [f"{axis}@{self.slot}={getattr(self, axis)}" for axis in AXES]

    def content(self, changes: Sequence[str] = ()) -> dict[str, Any]:
        """The slot as the configuration has it; `changes` are key=value below the slot.

        Raises `UserError` for a change that is no such key, or no value that it can have.
        """
        names = {axis: getattr(self, axis) for axis in AXES}
        if not changes:  # axis by axis: what one of them says does not depend on the others
            return {k: v for axis in AXES for k, v in _plain(axis, names[axis]).items()}
        files = (axis_file(axis, name) for axis, name in names.items())
        try:
            changed = OmegaConf.merge(Slot, *files, OmegaConf.from_dotlist(list(changes)))
            content = _resolved(changed)
        except OmegaConfBaseException as error:
            raise UserError(f"slot {self.slot}: {str(error).splitlines()[0]}") from None
        whole = dict.fromkeys(SLOTS) | {self.slot: content}
        check_slots(whole)
        check_values(whole)
        return content


@cache
def _plain(axis: str, name: str) -> dict[str, Any]:
    return _resolved(OmegaConf.merge(axis_file(axis, name)))


def _resolved(node: Any) -> dict[str, Any]:
    for key, number in SIZES.items():
        if OmegaConf.is_missing(node, key) or node.get(key, number) is None:
            node[key] = number
    return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


@cache
def axis_file(axis: str, name: str) -> DictConfig:
    """A file of conf/, on top of those that its defaults name."""
    own = OmegaConf.load(conf_dir() / axis / f"{name}.yaml")
    assert isinstance(own, DictConfig)
    below = [axis_file(axis, base) for base in own.pop("defaults", [])]
    merged = OmegaConf.merge(*below, own)
    assert isinstance(merged, DictConfig)
    return merged


@cache
def headline(axis: str, name: str) -> str:
    """The file's first line, a comment that says what it is."""
    text = (conf_dir() / axis / f"{name}.yaml").read_text(encoding="utf-8")
    return text.partition("\n")[0].removeprefix("#").strip()


def combinations(slot: str, given: Mapping[str, str] | None = None) -> Iterator[Point]:
    """Every point of the slot's own representations, legal or not; axes in `given` are fixed."""
    choices = {axis: options(axis) for axis in AXES}
    choices["representation"] = [r for r in choices["representation"] if _belongs(r, slot)]
    choices |= {axis: [name] for axis, name in (given or {}).items()}
    for form, insertion, representation, composition in itertools.product(*choices.values()):
        yield Point(slot, form, insertion, representation, composition)


def _belongs(representation: str, slot: str) -> bool:
    sites = axis_file("representation", representation).representation.sites
    return all(site in SITES[slot] for site in sites)


def reasons(point: Point, changes: Sequence[str] = ()) -> list[str]:
    """Why the point is illegal; nothing if it is legal."""
    content = point.content(changes)
    try:
        check_slot(point.slot, content)
    except Illegal as first:
        sites = content["representation"]["sites"]
        if not set(sites) <= set(SITES[point.slot]):
            return [str(first)]
        return [sentence for site in sites for sentence in objections(site, content)]
    return []


@cache
def legal(slot: str) -> tuple[Point, ...]:
    """The legal points of the slot."""
    return tuple(point for point in combinations(slot) if not reasons(point))


def function(content: Mapping[str, Any], family: str) -> str:
    """What decides the function of the stored numbers on backbones of `family`.

    Points of one function hold the same numbers and compute the same from them.
    """
    table = FAMILIES[family]
    form, composition = bare(content["form"]), bare(content["composition"])
    if is_ours(form):
        form = {key: value for key, value in form.items() if key not in IN_TRAINING}
    if form.get("query") == "reference":
        form["query"] = table.reference_query[form["activation"]]
    if is_ours(composition) and content["composition"].get("scale") == 1:
        composition["_target_"] = composition["_target_"].replace("Scaled", "Add")
    place = {k: v for k, v in content["representation"].items() if k != "sites"}
    taps = [_tap(table, site, content["insertion"]) for site in content["representation"]["sites"]]
    parts = (form, composition, content["insertion"], place, taps)
    return repr([sorted(part.items()) if isinstance(part, dict) else part for part in parts])


def bare(node: Any) -> Any:
    """An axis without its sizes."""
    if isinstance(node, dict):
        return {key: value for key, value in node.items() if key not in SIZED}
    return node


def _tap(table: Any, site: str, insertion: str) -> str:
    """Where x is read, unless nothing reads it, and where h is written."""
    taps = {**table.attention, **table.ffn}.get(site, site)
    return taps.rpartition(" -> ")[2] if insertion == "sequential" else taps


def twins(content: Mapping[str, Any], slot: str) -> dict[Point, list[str]]:
    """The points with the function of `content`, each with the families where they have it."""
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
    """How many different functions the legal points of the slot are."""
    return len({theirs for _, theirs in _functions(slot, family)})


def configurations(count: Mapping[str, int]) -> int:
    """How many ways there are to fill the slots, each from its points or left empty."""
    product = 1
    for slot in SLOTS:
        product *= count[slot] + 1
    return product - 1
