"""Tiny backbones with the deltas of a method attached."""

from typing import Any

import torch
from tiny import backbone
from tiny_config import resolved

from unipeft_run import config as configuration
from unipeft_run.config.schema import SLOTS
from unipeft_run.deltas.attach import attach, find_deltas
from unipeft_run.deltas.slots import built

TASKS = {"bart": "xsum", "mbart": "wmt16_en_ro", "roberta": "sst2"}


def compose_mini(method: str, family: str) -> dict[str, Any]:
    """The resolved configuration of a method in miniature, not cached: callers may change it."""
    words = [f"task={TASKS[family]}", f"method={method}", "scale=mini"]
    return configuration.resolve(configuration.compose(words))


def attach_method(method: str, family: str, seed: int = 0) -> tuple[Any, dict[str, Any]]:
    """A tiny backbone with the method attached, and its configuration."""
    cfg, model = compose_mini(method, family), backbone(family)
    torch.manual_seed(seed)
    attach(model, {name: built(cfg[name]) for name in SLOTS}, cfg["unfreeze"])
    return model, cfg


def perturbed_model(family: str, method: str, core: str = "sdpa") -> Any:
    """A tiny model in eval mode whose deltas are far from their initialisation."""
    cfg = resolved(f"task={TASKS[family]}", f"method={method}", "scale=mini")
    model = backbone(family)
    model.set_attn_implementation(core)
    attach(model, {name: built(cfg[name]) for name in SLOTS}, cfg["unfreeze"])
    torch.manual_seed(4)
    with torch.no_grad():
        for _, delta in find_deltas(model):
            for parameter in delta.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()
