"""Attach a method of the PEFT library to a backbone; read, load, count and merge its tensors.

`TunerConfig` describes the method. The model keeps its class: the library replaces some of its
modules in place. What belongs to the method is kept in an `Adapter`, in an attribute of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unipeft_run.config.schema import TunerConfig
from unipeft_run.errors import UserError
from unipeft_run.tuners.adalora import UNKNOWN_STEPS, full_ranks
from unipeft_run.tuners.library import ADAPTER, build_config, converted_errors, quiet, wrap
from unipeft_run.tuners.originals import (
    copy_rewritten,
    copy_trained,
    repeatable,
    restore,
    undone_on_error,
)
from unipeft_run.tuners.targets import (
    leave_out_head,
    name_modules,
    refuse_head,
    resolve_modules,
    select_in_head,
)

ATTRIBUTE = "_unipeft_adapter"
ROOT = "base_model.model."  # the library's prefix of the model's names
UNSTORED = (f".ranknum.{ADAPTER}",)  # the rank of AdaLoRA, a constant
Rows = dict[tuple[str, str], dict[str, int]]


@dataclass
class Adapter:
    """The library's modules in one model.

    Args:
        wrapper: the library's wrapper of the model, which finds, saves and merges its modules.
        tuner: the method, with the paths of its modules.
        backbone: the number of the backbone's parameters, tied ones once.
        names: the parameters of the backbone: name without -> name with the modules.
        unfrozen: names of those that train, without the modules.
        places: path of each replaced module -> the representation that it computes.
        originals: the values of the backbone's parameters that the library changes or trains.
    """

    wrapper: Any
    tuner: TunerConfig
    backbone: int
    names: Mapping[str, str]
    unfrozen: tuple[str, ...]
    places: Mapping[str, str]
    originals: Mapping[str, torch.Tensor]

    @property
    def model(self) -> Any:
        """The transformers model."""
        return self.wrapper.get_base_model()

    @property
    def config(self) -> Any:
        """The library's configuration."""
        return self.wrapper.peft_config[ADAPTER]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what the library stores, by its names; the tensors share the model's memory."""
        from peft import get_peft_model_state_dict

        with quiet(), full_ranks(self.config):
            return get_peft_model_state_dict(self.wrapper, save_embedding_layers=False)

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Load what `tensors` returned."""
        from peft import set_peft_model_state_dict

        with quiet():
            set_peft_model_state_dict(self.wrapper, dict(tensors))

    def unfrozen_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the trained parameters of the backbone, by their names without the modules."""
        parameters = dict(self.model.named_parameters())
        for name in self.unfrozen:
            yield name, parameters[self.names[name]]

    def backbone_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield all parameters of the backbone in the same way; those in `originals` from there."""
        parameters = dict(self.model.named_parameters())
        for name, current in self.names.items():
            yield name, self.originals.get(name, parameters[current])

    def rows(self) -> Rows:
        """Count sites, trained and stored parameters by representation.

        Tensors that all sites share are counted in a row of their own.
        """
        rows: Rows = {}
        for name in dict.fromkeys(self.places.values()):
            rows["peft", name] = {"sites": 0, "trained": 0, "stored": 0}
            rows["peft", name]["sites"] = list(self.places.values()).count(name)
        stored = ((n.removeprefix(ROOT), t.numel()) for n, t in self.tensors().items())
        for kind, counted in (("trained", self._trained()), ("stored", stored)):
            for name, size in counted:
                empty = {"sites": 0, "trained": 0, "stored": 0}
                rows.setdefault(("peft", self._place(name)), empty)[kind] += size
        return rows

    def _trained(self) -> Iterator[tuple[str, int]]:
        """Yield name and size of each trained parameter of the method; shared ones have no name."""
        unfrozen = {self.names[name] for name in self.unfrozen}
        named = self.model.named_parameters(remove_duplicate=False)
        places: dict[nn.Parameter, list[str]] = {}
        for name, parameter in named:
            if parameter.requires_grad and name not in unfrozen:
                places.setdefault(parameter, []).append(name)
        for parameter, names in places.items():
            yield names[0] if len(names) == 1 else "", parameter.numel()

    def _place(self, name: str) -> str:
        """Return the representation of the module that holds the tensor `name`."""
        parts = name.split(".")
        paths = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        return next((self.places[path] for path in paths if path in self.places), "shared")


def attach_tuner(model: nn.Module, tuner: TunerConfig) -> Adapter:
    """Put the modules of `tuner` into a frozen backbone; they and what trained before train.

    New weights are drawn from torch's random state. Raises UserError if the library rejects it; the
    model is then unchanged.
    """
    resolved = resolve_modules(model, tuner.config)
    config = build_config(tuner.type, {**resolved, **_needed(tuner)}, "peft.config")
    key = f"peft.type={tuner.type}"
    with converted_errors(key):
        leave_out_head(model, config)
        rewritten = copy_rewritten(model, config)
    with undone_on_error(model, rewritten):
        return _wrap(model, TunerConfig(type=tuner.type, config=resolved), config, rewritten, key)


def _wrap(
    model: nn.Module,
    tuner: TunerConfig,
    config: Any,
    rewritten: Mapping[str, torch.Tensor],
    key: str,
) -> Adapter:
    """Put the library's modules into the model. `rewritten`: weights that `config` may change."""
    before = {name: p for name, p in model.named_parameters()}
    trained = [name for name, p in before.items() if p.requires_grad]
    places = name_modules(model)
    with repeatable(model, config):
        wrapper = wrap(model, config, key)
    _check_head(model, key)
    replaced = _replaced(model)
    originals = copy_trained(before, trained) | {
        name: value for name, value in rewritten.items() if name.rpartition(".")[0] in replaced
    }
    names = {id(p): name for name, p in model.named_parameters()}
    for name in trained:
        before[name].requires_grad_(True)
    adapter = Adapter(
        wrapper,
        tuner,
        sum(p.numel() for p in before.values()),
        {name: names[id(p)] for name, p in before.items() if id(p) in names},
        tuple(trained),
        {path: places.get(path, path.rpartition(".")[2]) for path in replaced},
        originals,
    )
    _freeze_unstored(model)
    setattr(model, ATTRIBUTE, adapter)
    model.train(model.training)  # the new modules too
    return adapter


def find_adapter(model: nn.Module) -> Adapter | None:
    """Return the library's modules in `model`; None if there are none."""
    return vars(model).get(ATTRIBUTE)


def detach_tuner(adapter: Adapter) -> None:
    """Take the library's modules out of the model again; its own weights are as before."""
    model = adapter.model
    with quiet():
        adapter.wrapper.unload()
    restore(model, adapter.originals)
    delattr(model, ATTRIBUTE)


@contextmanager
def disabled_tuner(adapter: Adapter) -> Iterator[None]:
    """Switch the method off inside this context, in eval mode; its modules stay in the model."""
    trains = [(parameter, parameter.requires_grad) for parameter in adapter.model.parameters()]
    with quiet():
        adapter.wrapper.base_model.disable_adapter_layers()
    try:
        yield
    finally:
        with quiet():
            adapter.wrapper.base_model.enable_adapter_layers()
        for parameter, trained in trains:
            parameter.requires_grad_(trained)


def merge_tuner(adapter: Adapter) -> None:
    """Merge the method into the model's weights, in place, and take its modules out.

    Raises UserError if the library cannot merge this method.
    """
    model = adapter.model
    with quiet(), converted_errors(f"peft.type={adapter.tuner.type} cannot be merged"):
        adapter.wrapper.merge_and_unload(safe_merge=True)
    delattr(model, ATTRIBUTE)


def _needed(tuner: TunerConfig) -> dict[str, Any]:
    """Return fields that the library demands before their value is known."""
    unknown = tuner.type == "ADALORA" and tuner.config.get("total_step") is None
    return {"total_step": UNKNOWN_STEPS} if unknown else {}


def _replaced(model: nn.Module) -> list[str]:
    """Return the paths of the modules that the library replaced."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]


def _check_head(model: Any, key: str) -> None:
    """Raise UserError for a changed head of a task or output layer.

    The loss reads the output layer by itself.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise UserError(
            f"{key} changes the output embeddings, which the loss reads by itself; "
            "they may be tied to the input embeddings"
        )
    for path in select_in_head(model, _replaced(model)):
        raise refuse_head(path)


def _freeze_unstored(model: nn.Module) -> None:
    """Freeze the parameters that the library trains but does not store."""
    for name, parameter in model.named_parameters():
        if name.endswith(UNSTORED):
            parameter.requires_grad_(False)
