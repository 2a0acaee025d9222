"""Cases recorded from today's peer libraries, and transformers' float32 islands in float64."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

OWN = Path(__file__).parents[1] / "golden_peers"
SHARED = Path(__file__).parents[3] / "shared" / "golden_peers"  # all cases, in a work place


def root() -> Path:
    """Return the folder with the most cases."""
    return SHARED if SHARED.is_dir() else OWN


def case_names(folder: str) -> list[str]:
    return sorted(file.stem for file in (root() / folder).glob("*.json"))


def load(path: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the description and the tensors of a case or backbone, such as cases/llama__ia3."""
    return json.loads((root() / f"{path}.json").read_text()), load_file(
        root() / f"{path}.safetensors"
    )


def backbone(family: str) -> tuple[Any, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the configuration, state (transformers 5 names) and other tensors of a backbone."""
    meta, tensors = load(f"backbone_{family}")
    settings = dict(meta["model_config"])
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    renamed = meta.get("names_in_transformers_5", {})
    others = {name: t for name, t in tensors.items() if "/" in name}
    state = {renamed.get(name, name): t for name, t in tensors.items() if "/" not in name}
    for alias, name in meta["state_aliases"].items():
        state[alias] = state[name]
    return config, state, others


def inputs_of(others: dict[str, torch.Tensor], kind: str = "input") -> dict[str, torch.Tensor]:
    prefix = f"{kind}/"
    return {n.removeprefix(prefix): t for n, t in others.items() if n.startswith(prefix)}


def widen_rotary(model: torch.nn.Module) -> None:
    """Recompute the rotary frequencies in float64."""
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            config: Any = module.config
            theta = config.rope_parameters["rope_theta"]
            steps = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
            module.inv_freq = theta**-steps


@contextmanager
def float64_islands() -> Iterator[None]:
    """Compute in float64 what transformers computes in float32 whatever the model's type.

    RMSNorm statistics, rotary tables and some softmaxes: casts to float32 become the identity, and
    new tensors are float64 by default.
    """
    float32, to, softmax = torch.Tensor.float, torch.Tensor.to, torch.nn.functional.softmax

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.dtype == torch.float64 else to(tensor, torch.float64)

    def wide_to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in kwargs.items()}
        return to(tensor, *args, **kwargs)

    def wide_softmax(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        kwargs.pop("dtype", None)
        return softmax(x, *args, **kwargs)

    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float, torch.Tensor.to = keep, wide_to  # type: ignore[method-assign,assignment]
    torch.nn.functional.softmax = wide_softmax  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.set_default_dtype(default)
        torch.Tensor.float, torch.Tensor.to = float32, to  # type: ignore[method-assign]
        torch.nn.functional.softmax = softmax  # type: ignore[assignment]
