"""What a configuration holds, and of which type. Sections that a class takes by name stay open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from unipeft_run.config.words import shown, unknown
from unipeft_run.errors import UserError


@dataclass
class Representation:
    sites: list[str] = MISSING
    stacks: list[str] = MISSING
    attentions: list[str] = MISSING
    layers: Any = "all"  # or a list of numbers, from 0


@dataclass
class Slot:
    """h <- composition(h, form(insertion(x, h))), and its numbers."""

    form: dict[str, Any] = MISSING
    insertion: str = MISSING
    representation: Representation = MISSING
    composition: dict[str, Any] = MISSING
    bottleneck: int | None = None
    scale: float | None = None


@dataclass
class Backbone:
    name: str = MISSING
    family: str = MISSING
    hub: str | None = None
    path: str | None = None
    weights: str = "pretrained"
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class Recipe:
    max_steps: int | None = None
    epochs: float | None = None
    batch_size: int | None = None
    max_tokens: int | None = None
    accumulation: int = 1
    max_grad_norm: float | None = None
    label_smoothing: float = 0.0
    warmup_steps: int = 0
    warmup_ratio: float = 0.0
    eval_every: int | None = None
    eval_limit: int | None = None
    log_every: int = 50
    checkpoint_every: int | None = None
    early_stopping: int | None = None


@dataclass
class Optim:
    name: str = MISSING
    lr: float = MISSING
    betas: list[float] = MISSING
    eps: float = MISSING
    weight_decay: float = MISSING
    schedule: str = MISSING
    lr_end: float = MISSING


@dataclass
class Decoding:
    num_beams: int = MISSING
    max_length: int = MISSING
    min_length: int = 0
    no_repeat_ngram_size: int = 0
    length_penalty: float = 1.0
    early_stopping: bool = False
    forced_bos: bool = False
    forced_eos: bool = True


@dataclass
class Evaluation:
    batch_size: int = MISSING
    references: str = "raw"
    decoding: Decoding | None = None


@dataclass
class Limit:
    train: int | None = None
    validation: int | None = None
    test: int | None = None


@dataclass
class Config:
    task: dict[str, Any] = MISSING
    method: str = MISSING
    scale: str = MISSING
    backbone: Backbone = MISSING
    recipe: Recipe = MISSING
    optim: Optim = MISSING
    evaluation: Evaluation = MISSING
    tracking: dict[str, Any] = field(default_factory=dict)
    attn: Slot | None = None
    ffn: Slot | None = None
    input: Slot | None = None
    unfreeze: list[str] = field(default_factory=list)
    limit: Limit = field(default_factory=Limit)
    seed: int = 42
    precision: str = "auto"
    output: str = "outputs"
    force: bool = False


KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}


def typed(cfg: DictConfig) -> dict[str, Any]:
    """`cfg` resolved, every value of its type. Raises `UserError` for a wrong key or value."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), cfg)
        return cast("dict[str, Any]", OmegaConf.to_container(merged, resolve=True))
    except OmegaConfBaseException as error:
        raise UserError(_sentence(error, cfg)) from None


def _sentence(error: OmegaConfBaseException, cfg: DictConfig) -> str:
    path, message = error.full_key or "", str(error).partition("\n")[0]
    if isinstance(error, ConfigKeyError):
        siblings = error.parent_node.keys() if isinstance(error.parent_node, DictConfig) else ()
        parent = path.rpartition(".")[0]
        return unknown("key", path, [f"{parent}.{key}" if parent else str(key) for key in siblings])
    if not isinstance(error, ValidationError):
        return f"{path}: {message}"
    value = OmegaConf.select(cfg, path)
    if value is None:
        return f"{path} cannot be null"
    kind = next((words for name, words in KINDS.items() if message.endswith(f"to {name}")), None)
    return f"{path}={shown(value)} is not {kind}" if kind else f"{path}={shown(value)}: {message}"
