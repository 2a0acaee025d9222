"""Save a named delta to a folder, and load it onto a model: safetensors and JSON, no pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unipeft_run.backbones.families import family_of, head_patterns
from unipeft_run.config.declarations import forget_edited, is_allowed, is_extension, is_ours
from unipeft_run.config.legality import check_places, check_slot
from unipeft_run.config.messages import shorten, unknown_choice
from unipeft_run.config.schema import SLOTS, SlotConfig, TunerConfig
from unipeft_run.config.tuners import check_tuner_fields
from unipeft_run.config.validation import check, check_insertion, check_part
from unipeft_run.deltas.delta_file import (
    RECIPE,
    copy_tensors,
    read_recipe,
    read_tensors,
    stored_tensors,
    write_delta,
)
from unipeft_run.deltas.fingerprint import check_family, check_weights, describe_backbone
from unipeft_run.deltas.origin import refuse_trained
from unipeft_run.deltas.slots import build_slot
from unipeft_run.errors import UserError
from unipeft_run.library.attach import add_delta
from unipeft_run.library.backbone import check_model
from unipeft_run.library.store import NamedDelta, Store, require_store
from unipeft_run.library.summary import Attached
from unipeft_run.library.switch import activate, active, detach
from unipeft_run.tuners.adapter import find_adapter


def save(model: nn.Module, folder: str | Path, *, name: str | None = None) -> Path:
    """Write one delta, by default the active one, to `folder`; return the folder.

    `delta.safetensors` holds what inference needs: the deltas (a prefix without its MLP) and the
    unfrozen backbone parameters. `delta.json` says how to attach them, and to which backbone.
    Raises UserError if `name` is unknown, or not given while several deltas are active or none,
    and if the folder cannot be written.
    """
    store, folder = require_store(model), Path(folder).expanduser()
    name = _only_active(store) if name is None else name
    delta = store.get(name)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder; choose another")
    backbone = describe_backbone(model, delta.unfrozen, store.plain)
    tensors = dict(_tensors(model, store, delta))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_delta(tensors, folder, {**delta.recipe, "backbone": backbone})
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from None
    return folder


def load(
    model: nn.Module,
    folder: str | Path,
    *,
    name: str | None = None,
    allow: str | Sequence[str] = (),
) -> Attached:
    """Attach the delta in `folder`, written by `save` or a run, to a backbone, and activate it.

    `name` defaults to the name that it was saved under. `allow`: a prefix, or several, of
    classes that delta.json may name, besides those of this package and of extension folders. Raises
    UserError if the files are missing or damaged, or if the model is not the backbone that the
    delta was trained on; the model and its active deltas are then unchanged.
    """
    folder = Path(folder).expanduser()
    check_model(model)
    refuse_trained(model)
    read_tensors(folder)  # before the model is changed
    written = read_recipe(folder)
    recipe = _check_recipe(written, folder)
    slots = {key: build_slot(key, slot) for key, slot in _read_slots(recipe, folder, allow).items()}
    tuner = _read_tuner(recipe, model)
    previous = active(model)
    check = partial(_check_fits, model, recipe, folder, of_run="name" not in written)
    attached = add_delta(model, name or recipe["name"], recipe, slots, tuner, check)
    try:
        store = require_store(model)
        stored = copy_tensors(folder, dict(_tensors(model, store, store.get(attached.name))))
        if adapter := find_adapter(model):
            adapter.load({key: stored[key] for key in adapter.tensors()})
    except BaseException:
        detach(model, attached.name)
        if previous:
            activate(model, previous)
        raise
    return attached


def _only_active(store: Store) -> str:
    if len(store.active) == 1:
        return store.active[0]
    state = f"{len(store.active)} deltas are active" if store.active else "no delta is active"
    raise UserError(f"{state}; give name= one of {', '.join(store.named)}")


def _tensors(model: nn.Module, store: Store, delta: NamedDelta) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of everything that inference needs of one delta."""
    yield from stored_tensors(delta.deltas)
    acts = delta.summary.name in store.active
    if acts and (adapter := find_adapter(model)):
        yield from adapter.tensors().items()
        yield from adapter.unfrozen_parameters()
        return
    yield from delta.tensors.items()
    for name in delta.unfrozen:
        yield name, model.get_parameter(name) if acts else delta.values[name]


def _check_recipe(recipe: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the recipe with defaults for what a run does not write. Raises UserError."""
    backbone, unfreeze = recipe.get("backbone"), recipe.get("unfreeze")
    slots = recipe.get("slots")
    method = recipe.get("method", folder.resolve().parent.name)  # runs of earlier versions
    names = isinstance(unfreeze, list) and all(isinstance(pattern, str) for pattern in unfreeze)
    if not (isinstance(backbone, dict) and isinstance(slots, dict) and names):
        raise UserError(f"{folder / RECIPE} is damaged: it needs backbone, unfreeze and slots")
    name = recipe.get("name", folder.resolve().name)
    return {
        "name": str(name),
        "method": shorten(method),
        "unfreeze": unfreeze,
        "slots": slots,
        "backbone": backbone,
        **({"peft": recipe["peft"]} if recipe.get("peft") is not None else {}),
    }


def _check_fits(model: Any, recipe: Mapping[str, Any], folder: Path, *, of_run: bool) -> None:
    """Raise UserError if the model is not the delta's backbone, as far as the recipe tells."""
    check_family(model, recipe["backbone"], folder)
    frozen = [pattern for pattern in head_patterns(model) if pattern not in recipe["unfreeze"]]
    if of_run and frozen and "*" not in recipe["unfreeze"]:
        raise UserError(
            f"{folder} holds a run whose classifier was frozen at its random initialisation, "
            "which this model does not have; use load_run(folder)"
        )
    check_weights(model, recipe["backbone"], folder)


def _read_tuner(recipe: Mapping[str, Any], model: Any) -> TunerConfig | None:
    """Return the method of the PEFT library in a recipe. Raises UserError."""
    if "peft" not in recipe:
        return None
    tuner = check(TunerConfig, recipe["peft"], "peft")
    check_tuner_fields(tuner, family_of(model.config).name)
    return tuner


def _is_trusted(target: str, allow: str | Sequence[str]) -> bool:
    return is_ours(target) or is_extension(target) or is_allowed(target, allow)


def _read_slots(
    recipe: Mapping[str, Any], folder: Path, allow: str | Sequence[str]
) -> dict[str, SlotConfig]:
    """Return the slots of a recipe as typed configuration. Raises UserError."""
    forget_edited()
    slots = {}
    for key, content in recipe["slots"].items():
        if key not in SLOTS:
            raise UserError(unknown_choice(f"{folder / RECIPE}: slot", key, SLOTS))
        slot = check(SlotConfig, content, key)
        for axis, part in (("form", slot.form), ("composition", slot.composition)):
            if not _is_trusted(part.target, allow):
                raise UserError(
                    f"{folder / RECIPE} names the class {shorten(part.target)}; "
                    f"if you trust it, pass allow=[{part.target!r}]"
                )
            check_part(key, axis, part)
        check_insertion(key, slot.insertion)
        check_slot(key, slot)
        slots[key] = slot
    check_places(slots)
    return slots
