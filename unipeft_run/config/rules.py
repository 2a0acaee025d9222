"""What a configuration may say: a sentence for everything that it may not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from unipeft_run.config.legality import class_of, is_ours
from unipeft_run.config.messages import Illegal, options, shown, unknown_choice
from unipeft_run.config.schema import SLOTS
from unipeft_run.config.sections import check_sections
from unipeft_run.errors import UserError

Resolved = dict[str, Any]

CHOICES = {
    "precision": ("fp32", "bf16", "fp16", "auto"),
    "parallel": ("ddp", "fsdp"),
    "scale": ("paper", "mini"),
    "head": ("frozen", "trained"),
    "backbone.family": ("bart", "mbart", "roberta"),
    "backbone.weights": ("pretrained", "random"),
    "recipe.accumulation_weighting": ("equal", "targets"),
    "optim.schedule": ("polynomial", "linear", "cosine", "constant"),
    "evaluation.references": ("raw", "reference_code"),
    "task.rouge_tokenizer": ("unicode",),  # null: rouge-score's own
    "tracking.wandb.mode": ("auto", "online", "offline", "disabled"),
    "*.form.norm": ("none", "in"),
    "*.form.init": ("bert", "lora"),
    "*.form.query": ("reference", "scaled", "unscaled", "normed", "normed_unscaled"),
}
ACTIVATIONS = {  # of a form, by its class
    "Bottleneck": ("relu", "gelu", "silu", "tanh", "identity"),
    "Memory": ("softmax", "relu"),
}
SWITCHES = ("*.form.bias", "*.composition.norm")
ONE_OR_MORE = ("1 or more", lambda n: n >= 1)
TWO_OR_MORE = ("2 or more", lambda n: n >= 2)
WHOLE = ("whole, from 1 to a billion", lambda n: isinstance(n, int) and 1 <= n <= 10**9)
ABOVE_ZERO = ("above 0", lambda n: n > 0)
NOT_NEGATIVE = ("0 or more", lambda n: n >= 0)
SHARE = ("from 0 to below 1", lambda n: 0 <= n < 1)
NUMBERS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "*.bottleneck": ONE_OR_MORE,
    "*.scale": ABOVE_ZERO,
    "*.composition.scale": ABOVE_ZERO,
    "*.form.rank": WHOLE,
    "*.form.length": WHOLE,
    "*.mlp_width": WHOLE,
    "*.form.mlp_width": WHOLE,
    "*.form.dropout": SHARE,
    "*.form.input_dropout": SHARE,
    "recipe.max_steps": ONE_OR_MORE,
    "recipe.epochs": ("above 0, to a million", lambda n: 0 < n <= 10**6),
    "recipe.batch_size": ONE_OR_MORE,
    "recipe.max_tokens": ONE_OR_MORE,
    "recipe.accumulation": ONE_OR_MORE,
    "recipe.max_grad_norm": ABOVE_ZERO,
    "recipe.label_smoothing": SHARE,
    "recipe.warmup_steps": NOT_NEGATIVE,
    "recipe.warmup_ratio": SHARE,
    "recipe.eval_every": ONE_OR_MORE,
    "recipe.eval_limit": ONE_OR_MORE,
    "recipe.log_every": ONE_OR_MORE,
    "recipe.checkpoint_every": ONE_OR_MORE,
    "recipe.early_stopping": ONE_OR_MORE,
    "processes": ("whole, from 1 to 1024", lambda n: isinstance(n, int) and 1 <= n <= 1024),
    "optim.lr": ABOVE_ZERO,
    "optim.lr_end": NOT_NEGATIVE,
    "optim.eps": ABOVE_ZERO,
    "optim.weight_decay": NOT_NEGATIVE,
    "evaluation.batch_size": ONE_OR_MORE,
    "evaluation.decoding.num_beams": ONE_OR_MORE,
    "evaluation.decoding.max_length": TWO_OR_MORE,
    "evaluation.decoding.min_length": NOT_NEGATIVE,
    "evaluation.decoding.no_repeat_ngram_size": NOT_NEGATIVE,
    "task.lead_words": ONE_OR_MORE,
    "task.max_source_length": ONE_OR_MORE,
    "task.max_target_length": ONE_OR_MORE,
    "task.eval_target_length": ONE_OR_MORE,
    "limit.train": ONE_OR_MORE,
    "limit.validation": ONE_OR_MORE,
    "limit.test": ONE_OR_MORE,
    "seed": ("from 0 to 4294967295", lambda n: 0 <= n < 2**32),
}
GENERATE = ("bart", "mbart")  # the families that do; the others have a classification head
DROPOUTS = ("hidden", "attention")  # the backbone's own, for *.form.dropout


def check(config: Resolved) -> None:
    """Raises `UserError` for a value or a combination that means nothing."""
    check_sections(config)
    check_values(config)
    _check_names(config)
    _check_backbone(config)
    _check_recipe(config)
    _check_head(config)
    _check_optim(config["optim"])
    _check_trains(config)


def check_values(config: Resolved) -> None:
    """Raises `UserError` for a value that its key cannot have; a key may be missing."""
    files = {"optim.name": options("optim"), "*.insertion": options("insertion")}
    for pattern, allowed in {**CHOICES, **files}.items():
        for path, value in _values(config, pattern):
            if value not in allowed:
                raise UserError(unknown_choice(path, value, allowed))
    for pattern, (words, holds) in NUMBERS.items():
        for path, value in _values(config, pattern):
            _check_number(path, value, words, holds)
    for pattern in SWITCHES:
        for path, value in _values(config, pattern):
            if not isinstance(value, bool):
                raise UserError(f"{path}={shown(value)} is neither true nor false")
    _check_forms(config)


def _values(config: Resolved, pattern: str) -> Iterator[tuple[str, Any]]:
    """The paths that `pattern` names and that hold a value; * stands for a slot.

    What a form or composition of somebody else's takes is not ours to judge.
    """
    for slot in SLOTS if pattern.startswith("*.") else ("",):
        axis = pattern.removeprefix("*.").partition(".")[0]
        if slot and axis in ("form", "composition") and not _ours(config, slot, axis):
            continue
        path = pattern.replace("*", slot)
        value: Any = config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            yield path, value


def _ours(config: Resolved, slot: str, axis: str) -> bool:
    return config[slot] is not None and is_ours(config[slot][axis])


def _check_number(path: str, value: Any, words: str, holds: Callable[[float], bool]) -> None:
    if path.endswith(".form.dropout") and value in DROPOUTS:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and holds(value)):
        shown = f"{value:g}" if isinstance(value, float) else value
        raise UserError(f"{path}={shown} is not a number that is {words}")


def _check_forms(config: Resolved) -> None:
    """What no form of ours can do without, and the activations that it has."""
    for slot in SLOTS:
        form = config[slot]["form"] if _ours(config, slot, "form") else {}
        for key in ("rank", "length", "activation"):
            if key in form and form[key] is None:
                raise UserError(f"{slot}.form.{key} cannot be null")
        allowed = ACTIVATIONS.get(class_of(form)) if form else None
        if allowed and form.get("activation", allowed[0]) not in allowed:
            raise UserError(unknown_choice(f"{slot}.form.activation", form["activation"], allowed))


def _check_names(config: Resolved) -> None:
    """What the run folder is called by, which must stay below the output folder."""
    for key, name in (("task.name", config["task"].get("name")), ("method", config["method"])):
        if not (isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name)):
            raise UserError(f"{key}={shown(name)} is not a name of letters, digits, _ and -")


def _check_backbone(config: Resolved) -> None:
    name, task = config["backbone"]["name"], config["task"]["name"]
    generates = config["evaluation"]["decoding"] is not None
    if generates != (config["backbone"]["family"] in GENERATE):
        does = "generates text" if generates else "chooses a class"
        fit = "bart or mbart" if generates else "roberta"
        raise Illegal(f"task {task} {does}, which {name} cannot; take a {fit} backbone")


def _check_recipe(config: Resolved) -> None:
    recipe = config["recipe"]
    if recipe["max_steps"] is None and recipe["epochs"] is None:
        raise UserError("training has no end; give recipe.max_steps=... or recipe.epochs=...")
    if (recipe["batch_size"] is None) == (recipe["max_tokens"] is None):
        raise UserError(
            "a batch is counted in sentences or in tokens; of recipe.batch_size and "
            "recipe.max_tokens give one, and set the other to null"
        )
    if recipe["warmup_steps"] and recipe["warmup_ratio"]:
        raise UserError(
            "warm-up is given twice; set recipe.warmup_steps or recipe.warmup_ratio to 0"
        )


def _check_head(config: Resolved) -> None:
    if config["head"] == "trained" and config["backbone"]["family"] in GENERATE:
        raise Illegal("head=trained: a backbone that generates has no classifier to train")


def _check_optim(optim: Resolved) -> None:
    if len(optim["betas"]) != 2 or not all(0 <= beta < 1 for beta in optim["betas"]):
        raise UserError(f"optim.betas={optim['betas']} is not two numbers from 0 to below 1")
    if optim["schedule"] == "polynomial" and optim["lr_end"] >= optim["lr"]:
        raise UserError(
            f"optim.lr_end={optim['lr_end']:g} is not below optim.lr={optim['lr']:g}, "
            "where the polynomial schedule ends"
        )


def _check_trains(config: Resolved) -> None:
    slots = [slot for slot in SLOTS if config[slot] is not None]
    if not slots and not config["unfreeze"] and config["method"] != "none":
        raise Illegal(
            "nothing trains; fill a slot (attn, ffn, input), name parameters in unfreeze=[...], "
            "or take method=none to evaluate the untouched backbone"
        )
