"""Inert keys: keys that have no effect in a configuration.

They do not count towards a run's identity. Setting one on the command line is an error, because it
would look as if it changed the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.config.declarations import declaration_of, is_ours
from unipeft_run.config.messages import Illegal
from unipeft_run.config.schema import SLOTS, DecodingConfig, RunConfig, SlotConfig
from unipeft_run.data.tasks.build import build_task

Inert = tuple[str, str]  # dotted key, reason
# Of the recipe, what the evaluation of a model that does not train reads.
READ_UNTRAINED = ("label_smoothing",)
SIZE_KEYWORDS = {  # size of a slot -> the keywords of our classes that take it
    "bottleneck": ("rank", "length"),
    "scale": ("scale",),
    "mlp_width": ("mlp_width",),
}
UNREAD_BY_OPTIMIZER = {
    "adamw": ("momentum",),
    "adamw_official": ("momentum",),
    "sgd": ("betas", "eps"),
}


def refuse_inert(config: RunConfig, overrides: Iterable[str]) -> None:
    """Raise `Illegal` if an override sets a key that has no effect in `config`."""
    reasons = {**dict(inert_keys(config)), **dict(_unread_sizes(config))}
    for override in overrides:
        key, _, value = override.partition("=")
        key = key.lstrip("+~")
        if value == "null":  # says that it has no effect
            continue
        for inert, reason in reasons.items():
            if key == inert or key.startswith(f"{inert}."):
                raise Illegal(f"{override} has no effect here: {reason}")


def without_varied_sizes(cell: Iterable[str], words: Iterable[str]) -> list[str]:
    """Return the overrides of a grid's cell without the sizes that its command does not fix.

    A grid over compositions and scales gives every composition a scale; cells that differ only in a
    scale that nothing reads are equal, and run once. `words`: the overrides of the whole grid.
    """
    fixed = set(words)
    return [word for word in cell if word in fixed or not _sets_size(word)]


def _sets_size(override: str) -> bool:
    slot, _, size = override.partition("=")[0].lstrip("+").partition(".")
    return slot in SLOTS and size in SIZE_KEYWORDS


def inert_keys(config: RunConfig) -> Iterator[Inert]:
    """Yield every key that has no effect in `config`, with the reason."""
    yield from _evaluation(config)
    yield from _training(config)
    yield from _sources(config)
    for name, slot in config.slots().items():
        yield from ((f"{name}.{key}", reason) for key, reason in _slot(slot, config))


def unread_keys(config: RunConfig) -> Iterator[str]:
    """Yield the keys that a model without trained parameters does not read.

    They are left out of the identity too, but may be set: a grid over methods sets them for all.
    """
    if config.trains():
        return
    yield from ("optim", "task.selection")
    recipe = type(config.recipe).model_fields
    yield from (f"recipe.{name}" for name in recipe if name not in READ_UNTRAINED)
    yield from (f"backbone.config.{name}" for name in config.backbone.config if "dropout" in name)
    if config.evaluation.decoding and config.backbone.weights == "pretrained":
        yield "seed"  # a classifier's head is random


def _evaluation(config: RunConfig) -> Iterator[Inert]:
    decoding, task = config.evaluation.decoding, build_task(config.task)
    if task.kind != "seq2seq":
        yield "evaluation.references", f"task {config.task.name} has no reference texts to truncate"
    if decoding is None:
        return
    if not task.generates:
        yield "evaluation.decoding", "task.by=likelihood compares responses and generates none"
        return
    path = "evaluation.decoding."
    yield from ((f"{path}{key}", reason) for key, reason in inert_decoding_keys(decoding, path))


def inert_decoding_keys(decoding: DecodingConfig, path: str = "") -> Iterator[Inert]:
    """Yield every key that has no effect with the others in `decoding`, with the reason.

    `path`: the dotted key of the section in messages, up to its last dot.
    """
    if decoding.num_beams == 1:
        for key in ("length_penalty", "early_stopping", "rules"):
            yield key, f"{path}num_beams=1 is greedy search, without beams"
    if decoding.max_new_tokens is not None:
        yield "max_length", f"{path}max_new_tokens={decoding.max_new_tokens} takes precedence"


def _training(config: RunConfig) -> Iterator[Inert]:
    if build_task(config.task).kind == "regression":
        yield "recipe.label_smoothing", f"task {config.task.name} predicts a number, not a class"
    if config.recipe.max_steps is not None:
        yield "recipe.epochs", "recipe.max_steps takes precedence"
    if config.recipe.accumulation == 1:
        yield "recipe.accumulation_weighting", "recipe.accumulation=1: one micro-batch per update"
    for key in UNREAD_BY_OPTIMIZER[config.optim.name]:
        yield f"optim.{key}", f"optim.name={config.optim.name} does not read it"
    if config.optim.schedule != "polynomial":
        yield "optim.lr_end", "only the polynomial schedule has a final learning rate"


def _sources(config: RunConfig) -> Iterator[Inert]:
    task, backbone = config.task, config.backbone
    if task.path is not None:
        yield "task.mini", "task.path takes precedence"
        yield "task.data", "task.path takes precedence"
    if task.path is not None or task.mini is not None:
        yield "task.hub", "task.path and the miniature data take precedence"
    for name, reason in build_task(task).inert_keys().items():
        yield f"task.{name}", reason
    if backbone.path is not None:
        yield "backbone.hub", "backbone.path takes precedence"
    if backbone.family != "mbart":
        codes = ("source_code", "target_code")
        for key in codes if codes[0] in task.keywords else ("source_language",):
            if key in task.keywords:
                yield f"task.{key}", f"the tokenizer of {backbone.family} has no language codes"


def _slot(slot: SlotConfig, config: RunConfig) -> Iterator[Inert]:
    yield from _narrowing(slot)
    declared = declaration_of(slot.form.target)
    for key, needed in declared.attributes["acts_with"].items() if declared else ():
        if slot.form.keywords.get(needed) is None:
            yield f"form.{key}", f"form.{needed} is null"


def _unread_sizes(config: RunConfig) -> Iterator[Inert]:
    """Yield the sizes that no keyword takes; those of users' classes may have any name."""
    for name, slot in config.slots().items():
        parts = slot.form, slot.composition
        if not all(is_ours(part.target) for part in parts):
            continue
        given = {key for part in parts for key, value in part.keywords.items() if value is not None}
        for size, keywords in SIZE_KEYWORDS.items():
            if getattr(slot, size) is not None and not given & set(keywords):
                names = f"form {slot.form.name} and composition {slot.composition.name}"
                yield f"{name}.{size}", f"{names} do not take it"


def _narrowing(slot: SlotConfig) -> Iterator[Inert]:
    sites = slot.representation.sites
    if all(site.startswith("ffn") or site == "embedding" for site in sites):
        yield "representation.attentions", "the representation is not in attention"
    if "embedding" in sites:
        for key in ("stacks", "layers"):
            yield f"representation.{key}", "the embedding is before all layers"


def existing_parts(config: RunConfig, slot: SlotConfig) -> dict[str, list[str]]:
    """Return the stacks and attentions of the slot that exist in the backbone's family."""
    stacks = FAMILIES[config.backbone.family].stacks
    attentions = {kind for stack in stacks.values() for kind in stack.attentions}
    known = {word for name, stack in stacks.items() for word in (name, stack.role)}
    representation = slot.representation
    return {
        "stacks": [name for name in representation.stacks if name in known],
        "attentions": [name for name in representation.attentions if name in attentions],
    }
