"""Choose how the steps of a run are computed, and record the choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

import torch
from torch import nn

from unipeft_run.config.schema import ComputeConfig
from unipeft_run.deltas.gates import find_averaging
from unipeft_run.errors import UserError
from unipeft_run.training.compute.onednn import has_onednn, is_onednn_faster
from unipeft_run.training.compute.shapes import BatchGrid
from unipeft_run.training.distributed import processes
from unipeft_run.tuners.adapter import find_adapter

Products = Literal["torch", "onednn"]


@dataclass(frozen=True)
class ComputeOptions:
    """The user's choices. `grid`: the batch shapes for CUDA graphs; None: no graphs.

    `deterministic`: use deterministic kernels only.
    """

    config: ComputeConfig = field(default_factory=ComputeConfig)
    deterministic: bool = False
    grid: BatchGrid | None = None


@dataclass(frozen=True)
class ComputePlan:
    """`graphs`: CUDA graphs; `products`: the library of float32 matrix products on a CPU.

    Both change rounding, and graphs change dropout too, since they pad batches to fixed shapes. So
    a resumed run keeps the plan it was started with.
    """

    graphs: bool = False
    products: Products = "torch"

    @classmethod
    def choose(
        cls,
        options: ComputeOptions,
        model: nn.Module,
        device: torch.device,
        autocast: torch.dtype | None,
    ) -> Self:
        """Return the plan of `options`, with the fastest possible choice for each null.

        Raises `UserError` for an impossible value.
        """
        config = options.config
        check_device(config, device, autocast)
        obstacle = _find_obstacle(options, model)
        if config.graphs and obstacle:
            raise UserError(f"compute.graphs=true: CUDA graphs need {obstacle}")
        can_graph = _has_graphs(device) and obstacle is None
        graphs = can_graph if config.graphs is None else config.graphs
        return cls(graphs, _choose_products(config.products, device, autocast))

    @classmethod
    def resume(
        cls, recorded: Mapping[str, Any], device: torch.device, autocast: torch.dtype | None
    ) -> Self:
        """Return a recorded plan, reduced to what `device` supports, if the machine has changed."""
        plan = cls(**recorded)
        products: Products = plan.products if _can_use_onednn(device, autocast) else "torch"
        return replace(plan, graphs=plan.graphs and _has_graphs(device), products=products)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan for checkpoints and metrics.json."""
        return asdict(self)


def check_device(config: ComputeConfig, device: torch.device, autocast: torch.dtype | None) -> None:
    """Raise `UserError` for a choice that is impossible on `device` or with this precision."""
    if config.graphs and not _has_graphs(device):
        raise UserError("compute.graphs=true: CUDA graphs need one process with a GPU")
    if config.products == "onednn" and not _can_use_onednn(device, autocast):
        raise UserError(
            "compute.products=onednn: needs precision=fp32, a CPU, and a torch with oneDNN"
        )


def _find_obstacle(options: ComputeOptions, model: nn.Module) -> str | None:
    """Return what CUDA graphs need and this task or model lacks, or None."""
    if options.grid is None:
        return "batches of a few fixed shapes, which this task does not have"
    if _drops_layers(model) or find_adapter(model) is not None:
        return "a model that has neither layerdrop nor modules of the PEFT library"
    if find_averaging(model):
        return "deltas whose output does not depend on padding; UniPELT's gates are means over it"
    return None


def _has_graphs(device: torch.device) -> bool:
    return device.type == "cuda" and processes.world_size() == 1


def _drops_layers(model: nn.Module) -> bool:
    """Return whether the model has layerdrop: a graph would repeat one draw of layers."""
    config = getattr(model, "config", None)
    return any(getattr(config, f"{stack}_layerdrop", 0.0) > 0 for stack in ("encoder", "decoder"))


def _choose_products(
    wanted: Products | None, device: torch.device, autocast: torch.dtype | None
) -> Products:
    possible = _can_use_onednn(device, autocast)
    if wanted is None and possible and processes.world_size() == 1 and is_onednn_faster():
        return "onednn"
    return wanted or "torch"


def _can_use_onednn(device: torch.device, autocast: torch.dtype | None) -> bool:
    return device.type == "cpu" and autocast is None and has_onednn()
