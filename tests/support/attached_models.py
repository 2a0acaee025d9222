"""Tiny backbones with the deltas of a method attached."""

from typing import Any

import torch
from tiny import backbone
from tiny_config import configured

from unipeft_run.config import RunConfig
from unipeft_run.config.messages import own_options
from unipeft_run.deltas.attach import attach, find_deltas
from unipeft_run.deltas.slots import build_slots

METHODS = [method for method in own_options("method") if method != "none"]
TASKS = {"bart": "xsum", "mbart": "wmt16_en_ro", "roberta": "sst2"}

# method -> overrides with which generation is the same with and without a cache
CAUSAL = {
    "unipelt": tuple(f"{slot}.composition.per=position" for slot in ("attn", "ffn", "matrix"))
}


def attach_method(
    method: str, family: str, *overrides: str, seed: int = 0
) -> tuple[Any, RunConfig]:
    """Attach a method to a tiny backbone; return the model and its configuration."""
    config = configured(f"task={TASKS[family]}", f"method={method}", "scale=mini", *overrides)
    model = backbone(family)
    torch.manual_seed(seed)
    attach(model, build_slots(config), config.unfreeze)
    return model, config


def perturbed_model(family: str, method: str, core: str = "sdpa", *overrides: str) -> Any:
    """Build a tiny causal model in eval mode whose deltas are far from their initialisation."""
    causal = CAUSAL.get(method, ())
    words = (f"task={TASKS[family]}", f"method={method}", "scale=mini", *causal, *overrides)
    config = configured(*words)
    model = backbone(family)
    model.set_attn_implementation(core)
    attach(model, build_slots(config), config.unfreeze)
    torch.manual_seed(4)
    with torch.no_grad():
        for _, delta in find_deltas(model):
            for parameter in delta.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()
