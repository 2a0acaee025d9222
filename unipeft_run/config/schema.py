"""What a configuration holds, and of which type. Sections that a class takes by name stay open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from unipeft_run.config.messages import Illegal, options, shown, unknown_key
from unipeft_run.errors import UserError


@dataclass
class Representation:
    sites: list[str] = MISSING
    stacks: list[str] = MISSING
    attentions: list[str] = MISSING
    layers: Any = MISSING  # "all", or a list of numbers from 0


@dataclass
class Slot:
    """h <- composition(h, form(insertion(x, h))), and its numbers."""

    form: dict[str, Any] = MISSING
    insertion: str = MISSING
    representation: Representation = MISSING
    composition: dict[str, Any] = MISSING
    bottleneck: int | None = None
    scale: float | None = None
    mlp_width: int | None = None


@dataclass
class Backbone:
    name: str = MISSING
    family: str = MISSING
    hub: str | None = None
    path: str | None = None
    weights: str = MISSING
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class Recipe:
    max_steps: int | None = None
    epochs: float | None = None
    batch_size: int | None = None
    max_tokens: int | None = None
    accumulation: int = MISSING
    accumulation_weighting: str = "equal"
    max_grad_norm: float | None = None
    label_smoothing: float = MISSING
    warmup_steps: int = MISSING
    warmup_ratio: float = MISSING
    eval_every: int | None = None
    eval_limit: int | None = None
    log_every: int = MISSING
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
    min_length: int = MISSING
    no_repeat_ngram_size: int = MISSING
    length_penalty: float = MISSING
    early_stopping: bool = MISSING
    forced_bos: bool = MISSING
    forced_eos: bool = MISSING


@dataclass
class Evaluation:
    batch_size: int = MISSING
    references: str = MISSING
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
    head: str = MISSING
    limit: Limit = field(default_factory=Limit)
    seed: int = MISSING
    precision: str = MISSING
    parallel: str = MISSING
    processes: int = MISSING
    output: str = MISSING
    force: bool = MISSING


KINDS = {
    "converted to Integer": "a whole number",
    "converted to Float": "a number",
    "converted to Boolean": "true or false",
    "ListConfig": "a list, as in [a,b]",
    "subclass": "a section of keys",
}
SLOTS = ("attn", "ffn", "input")
AXES = ("form", "insertion", "representation", "composition")


def typed(cfg: DictConfig) -> dict[str, Any]:
    """`cfg` resolved, every value there and of its type. Raises `UserError`."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), cfg)
        for given in (cfg, merged):  # a number may be ??? in the one, a whole axis in the other
            for path in _missing(OmegaConf.to_container(given)):
                raise _missing_error(path)
        return cast("dict[str, Any]", OmegaConf.to_container(merged, resolve=True))
    except OmegaConfBaseException as error:
        raise UserError(_sentence(error, cfg)) from None


def _missing(node: Any, path: str = "") -> Iterator[str]:
    """The paths of what is still to be given."""
    if node == "???":
        yield path
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _missing(value, f"{path}.{key}" if path else str(key))


def _missing_error(path: str) -> UserError:
    slot, _, key = path.partition(".")
    if slot not in SLOTS:
        return UserError(f"{path} has no value; give one, as in {path}=...")
    if key in AXES:
        names = ", ".join(options(key))
        return Illegal(f"slot {slot} has no {key}; give {key}@{slot}= one of {names}")
    example = 4 if key == "scale" else 8
    return Illegal(f"{path} has no number; give one, as in {path}={example}")


def _sentence(error: OmegaConfBaseException, cfg: DictConfig) -> str:
    path, message = error.full_key or "", str(error).partition("\n")[0]
    if isinstance(error, ConfigKeyError):
        siblings = error.parent_node.keys() if isinstance(error.parent_node, DictConfig) else ()
        parent = path.rpartition(".")[0]
        return unknown_key(path, [f"{parent}.{key!s}".lstrip(".") for key in siblings])
    if not isinstance(error, ValidationError):
        return f"{path}: {message}"
    value = OmegaConf.select(cfg, path)
    if value is None:
        return f"{path} cannot be null"
    kind = next((words for name, words in KINDS.items() if name in message), None)
    return f"{path}={shown(value)} is not {kind}" if kind else f"{path}={shown(value)}: {message}"
