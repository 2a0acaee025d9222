"""Rules that involve several keys, each with its error message."""

from __future__ import annotations

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.config.messages import Illegal, unknown_choice
from unipeft_run.config.schema import SLOTS, DecodingConfig, RunConfig
from unipeft_run.data.tasks.build import build_task
from unipeft_run.errors import UserError

DOES = {  # kind of a task -> what its backbone does
    "seq2seq": "generates text",
    "classification": "predicts a class",
    "regression": "predicts a number",
    "causal": "continues text",
    "image_classification": "predicts the class of an image",
    "retrieval": "compares texts with images",
}
NEEDS = {"regression": "classification"}  # kind -> the type of its families, if it differs
LANGUAGES = {"source_language": "de_DE", "target_language": "en_XX"}  # examples of mBART's codes


def check_combinations(config: RunConfig) -> None:
    """Raise UserError for values that contradict each other."""
    _check_backbone(config)
    _check_languages(config)
    _check_recipe(config)
    _check_schedule(config)
    _check_trainable(config)
    _check_decoding(config)


def _check_backbone(config: RunConfig) -> None:
    from unipeft_run.backbones.model_config import check_fields  # which imports this package

    name, kind = config.backbone.family, build_task(config.task).kind
    if name not in FAMILIES:
        raise UserError(unknown_choice("backbone.family", name, FAMILIES))
    wanted = NEEDS.get(kind, kind)
    able = [family.name for family in FAMILIES.values() if family.task_type == wanted]
    if name not in able:
        *others, last = able
        families = f"{', '.join(others)} or {last}" if others else last
        raise Illegal(
            f"task {config.task.name} is of type {kind}, but backbone {config.backbone.name} is of "
            f"type {FAMILIES[name].task_type}; use a {families} backbone"
        )
    check_fields(config.backbone.config, FAMILIES[name])
    if config.head == "trained" and not FAMILIES[name].head:
        raise Illegal(f"head=trained: a backbone that {DOES[kind]} has no classifier to train")


def check_slots(config: RunConfig) -> None:
    """Raise `Illegal` for a slot that has no meaning in the backbone's family."""
    table = FAMILIES[config.backbone.family]
    for name, slot in config.slots().items():
        sites, options = slot.representation.sites, slot.form.keywords
        if not any(table.taps(site) or (site == "embedding" and table.prompt) for site in sites):
            raise Illegal(f"{name}.representation: {table.name} has no {', '.join(sites)}")
        if options.get("positions") and table.positions is None:
            raise Illegal(
                f"{name}.form.positions={options['positions']}: {table.name} takes no position_ids"
            )
        if "normed" in str(options.get("query")) and table.query is None:
            raise Illegal(
                f"{name}.form.query={options['query']}: the queries of {table.name} cannot be "
                "projected again from a normalised input"
            )


def _check_languages(config: RunConfig) -> None:
    keywords = config.task.keywords
    missing = [key for key in LANGUAGES if keywords.get(key, "given") is None]
    if config.backbone.family == "mbart" and missing:
        codes = " and ".join(f"task.{key}={LANGUAGES[key]}" for key in missing)
        raise UserError(
            f"backbone {config.backbone.name} needs the languages of the texts: give their "
            f"codes, as in {codes}"
        )


def _check_recipe(config: RunConfig) -> None:
    recipe = config.recipe
    if recipe.max_steps is None and recipe.epochs is None:
        raise UserError(
            "the length of training is not set; give recipe.max_steps=... or recipe.epochs=..."
        )
    if (recipe.batch_size is None) == (recipe.max_tokens is None):
        raise UserError(
            "a batch is measured in examples or in tokens: give one of recipe.batch_size and "
            "recipe.max_tokens, and set the other to null"
        )
    if recipe.warmup_steps and recipe.warmup_ratio:
        raise UserError(
            "warm-up is given twice; set recipe.warmup_steps or recipe.warmup_ratio to 0"
        )


def _check_schedule(config: RunConfig) -> None:
    optim = config.optim
    if optim.schedule == "polynomial" and optim.lr_end >= optim.lr:
        raise UserError(
            f"optim.lr_end={optim.lr_end:g}: must be less than optim.lr={optim.lr:g}, "
            "where the polynomial schedule starts"
        )


def _check_trainable(config: RunConfig) -> None:
    fills = config.slots() or config.peft
    if not fills and not config.unfreeze and config.method != "none":
        raise Illegal(
            f"nothing trains; fill a slot ({', '.join(SLOTS)}), name parameters in "
            "unfreeze=[...], or use method=none to evaluate the backbone as it is"
        )


def _check_decoding(config: RunConfig) -> None:
    decoding, path = config.evaluation.decoding, "evaluation.decoding"
    task = build_task(config.task)
    if decoding is None:
        if task.generates:
            raise UserError(
                f"task {config.task.name} generates text; give {path}.num_beams=... and "
                f"{path}.max_new_tokens=..."
            )
        return
    if task.label_names:
        raise Illegal(f"{path}: task {config.task.name} {DOES[task.kind]}; nothing is generated")
    if decoding.max_new_tokens is None and decoding.max_length is None:
        raise UserError(f"{path}.max_length has no value; give it or {path}.max_new_tokens")
    check_min_length(decoding, task.kind, f"{path}.")
    check_forced_bos(decoding, config, f"{path}.")


def check_min_length(decoding: DecodingConfig, kind: str, path: str = "") -> None:
    """Raise UserError if a text, of a task of this `kind`, cannot be as long as it has to be."""
    new = decoding.max_new_tokens
    longest = new if new is not None and kind == "causal" else decoding.find_longest()
    if decoding.min_length <= longest:
        return
    limit = f"{path}{decoding.length_key}={longest if new is None else new}"
    if new not in (None, longest):
        limit = f"{longest}, the start token and {limit}"
    raise UserError(f"{path}min_length={decoding.min_length}: must be at most {limit}")


def check_forced_bos(decoding: DecodingConfig, config: RunConfig, path: str = "") -> None:
    """Raise `Illegal` if the run's backbone cannot be forced to start with <s>."""
    family = FAMILIES[config.backbone.family]
    if not decoding.forced_bos:
        return
    if family.task_type == "causal":
        raise Illegal(
            f"{path}forced_bos=true: {family.name} continues the prompt, so no first token can be "
            "forced"
        )
    if "bos_token_id" not in family.fields:
        raise Illegal(f"{path}forced_bos=true: {family.name} has no token <s>")
