"""From a composed configuration to plain data that is known to be right."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from unipeft_run.config.legality import check_slot
from unipeft_run.config.rules import check
from unipeft_run.config.schema import SLOTS, typed


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """`cfg` as plain data: complete, every value of its type, every combination legal.

    Raises `UserError`, a sentence that names the key.
    """
    config = typed(cfg)
    if config["recipe"]["max_steps"] is not None:
        config["recipe"]["epochs"] = None  # max_steps stands over it
    check(config)
    for slot in SLOTS:
        if config[slot] is not None:
            check_slot(slot, config[slot])
    return config
