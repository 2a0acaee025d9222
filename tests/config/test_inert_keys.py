"""Every key of a configuration acts, is refused, or leaves the run id as it is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf
from sampling import sampled
from tiny_config import compose_once

from unipeft_run.config import compose, plan
from unipeft_run.config.messages import Illegal
from unipeft_run.errors import UserError

TASKS = ("xsum", "wmt16_en_ro", "mnli", "sst2")
METHODS = ("mam", "lora_attn", "full", "bitfit", "prompt", "none")
# Another legal value of each key that acts; a list where it depends on the method or the task.
ACTS = {
    "attn.bottleneck": "3",
    "attn.mlp_width": "5",
    "attn.form.length": "3",
    "attn.form.rank": "3",
    "attn.form.activation": ["relu", "tanh"],
    "attn.form.query": "normed",
    "attn.form.positions": "shifted",
    "attn.form.mlp_width": "5",
    "attn.form.bias": "true",
    "attn.form.norm": "in",
    "attn.form.init": ["bert", "lora"],
    "attn.form.dropout": "0.3",
    "attn.form.input_dropout": "0.3",
    "attn.insertion": "sequential",
    "attn.scale": "3",
    "attn.representation.sites": ["[attn.context]", "[attn.query]"],
    "attn.representation.layers": "[0]",
    "attn.composition.scale": "3",
    "attn.composition.norm": "true",
    "ffn.bottleneck": "3",
    "ffn.form.rank": "3",
    "ffn.form.activation": "gelu",
    "ffn.form.bias": "false",
    "ffn.form.norm": "in",
    "ffn.form.init": ["bert", "lora"],
    "ffn.form.dropout": "0.3",
    "ffn.form.input_dropout": "0.3",
    "ffn.insertion": "sequential",
    "ffn.representation.sites": "[ffn.normed]",
    "ffn.representation.layers": "[0]",
    "ffn.scale": "3",
    "ffn.composition.scale": "3",
    "ffn.composition.norm": "true",
    "input.bottleneck": "3",
    "input.form.length": "3",
    "input.form.mlp_width": "5",
    "input.form.dropout": "0.3",
    "unfreeze": "[pooler*]",
    "head": "trained",
    "limit.train": "3",
    "limit.validation": "3",
    "limit.test": "3",
    "seed": "1",
    "precision": "fp32",
    "compute.graphs": "false",
    "compute.products": "torch",
    "deterministic": "true",
    "task.hub.path": "other",
    "task.hub.name": "other",
    "task.hub.revision": "other",
    "task.source_column": "other",
    "task.target_column": "other",
    "task.column": "other",
    "task.text_column": "other",
    "task.label_column": "other",
    "task.premise_column": "other",
    "task.hypothesis_column": "other",
    "task.source_language": "de",
    "task.target_language": "de",
    "task.source_code": "fr_XX",
    "task.target_code": "fr_XX",
    "task.lead_words": "3",
    "task.rouge_tokenizer": "unicode",
    "task.selection": ["loss", "bleu"],
    "task.max_source_length": "33",
    "task.max_target_length": "33",
    "task.eval_target_length": "33",
    "backbone.hub": "other",
    "backbone.path": "nowhere",
    "backbone.weights": "random",
    "backbone.config.dropout": "0.25",
    "backbone.config.attention_dropout": "0.25",
    "backbone.config.hidden_dropout_prob": "0.3",
    "backbone.config.attention_probs_dropout_prob": "0.3",
    "recipe.max_steps": "3",
    "recipe.epochs": "3",
    "recipe.batch_size": "3",
    "recipe.accumulation": "3",
    "recipe.accumulation_weighting": "targets",
    "recipe.max_grad_norm": "0.3",
    "recipe.label_smoothing": "0.3",
    "recipe.warmup_steps": "3",
    "recipe.warmup_ratio": "0.3",
    "recipe.eval_every": "3",
    "recipe.eval_limit": "3",
    "recipe.early_stopping": "3",
    "optim.name": ["adamw", "adamw_official"],
    "optim.lr": "3",
    "optim.betas": "[0.5,0.6]",
    "optim.eps": "0.3",
    "optim.weight_decay": "0.3",
    "optim.schedule": ["linear", "cosine"],
    "optim.lr_end": "1e-9",
    "evaluation.references": "reference_code",
    "evaluation.decoding.num_beams": "3",
    "evaluation.decoding.max_length": "33",
    "evaluation.decoding.max_new_tokens": "33",
    "evaluation.decoding.min_length": "3",
    "evaluation.decoding.no_repeat_ngram_size": "5",
    "evaluation.decoding.length_penalty": "0.3",
    "evaluation.decoding.early_stopping": ["false", "true"],
    "evaluation.decoding.forced_bos": ["false", "true"],
    "evaluation.decoding.forced_eos": ["false", "true"],
    "evaluation.decoding.rules": "transformers",
}
NEUTRAL = {
    "evaluation.batch_size": "3",
    "recipe.log_every": "3",
    "recipe.checkpoint_every": "3",
    "processes": "2",
    "parallel": "fsdp",
    "output": "elsewhere",
    "force": "true",
    "tracking.console.every": "3",
    "tracking.tensorboard": "elsewhere",
    "tracking.wandb.mode": "offline",
    "tracking.wandb.project": "other",
    "tracking.wandb.entity": "other",
    "tracking.wandb.group": "other",
    "tracking.wandb.job_type": "other",
    "tracking.wandb.name": "other",
    "tracking.wandb.tags": "[other]",
}
# Keys with a test of their own: alternatives to others, classes, and names of what the rest is.
ELSEWHERE = (
    *("task.name", "task.path", "task.mini", "method", "scale", "backbone.name"),
    *("backbone.family", "recipe.max_tokens", "evaluation.decoding", "attn", "ffn", "input"),
    *("matrix", "peft"),
    *(
        "input.insertion",
        "input.representation.sites",
        "input.representation.layers",
        "_target_",
        "_partial_",
        "stacks",
        "attentions",
    ),
)
UNTRAINED = ("recipe.", "optim.", "task.selection")
Words = tuple[str, ...]


def _leaves(node: Any, path: str = "") -> Iterator[str]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path


def _keys(words: Words) -> list[str]:
    return list(_leaves(OmegaConf.to_container(compose_once(*words), resolve=True)))


def _effect(words: Words, word: str) -> str:
    """`acts`, `neutral`, or the reason why the word is refused."""
    cfg, (key, _, value) = compose_once(*words).copy(), word.partition("=")
    OmegaConf.update(cfg, key, yaml.safe_load(value))
    try:
        changed = plan(cfg, [word])
    except UserError as refusal:
        return str(refusal)
    return "neutral" if changed.run_id == _run_id(words) else "acts"


@cache
def _run_id(words: Words) -> str:
    return plan(compose_once(*words)).run_id


@pytest.mark.parametrize(("task", "method"), sampled(product(TASKS, METHODS), 3))
def test_every_key_is_known_to_act_or_not(task: str, method: str) -> None:
    names = {*ACTS, *NEUTRAL, *ELSEWHERE}
    for key in _keys((f"task={task}", f"method={method}")):
        assert key in names or key.rpartition(".")[2] in names or key == "backbone.config", key


CASES = [
    *product(["mam"], TASKS),
    *product(["none"], ("xsum", "sst2")),
    *(("lora_attn", "mnli"), ("prompt", "xsum"), ("bitfit", "sst2"), ("full", "wmt16_en_ro")),
]


@pytest.mark.parametrize(("method", "task"), sampled(CASES, 3))
def test_the_run_id_changes_exactly_with_what_acts(method: str, task: str) -> None:
    words = (f"task={task}", f"method={method}")
    wrong = []
    for key in _keys(words):
        for value in _values(key):
            effect = _effect(words, f"{key}={value}")
            refused = key in effect or effect.startswith("slot attn: ")
            if not refused and effect not in _expected(key, method, task):
                wrong.append(f"{key}={value}: {effect}")
    assert not wrong


def _values(key: str) -> list[str]:
    value = {**ACTS, **NEUTRAL}.get(key, [])
    return [value] if isinstance(value, str) else list(value)


def _expected(key: str, method: str, task: str) -> tuple[str, ...]:
    """Return the effects that are correct for the key.

    A list of values may hold the default, or one that is illegal for a reason that names no key.
    """
    if key in NEUTRAL:
        return ("neutral",)
    if method == "none" and key.startswith(UNTRAINED) and key != "recipe.label_smoothing":
        return ("neutral",)
    if method == "none" and (
        "dropout" in key or (key == "seed" and task in ("xsum", "wmt16_en_ro"))
    ):
        return ("neutral",)
    return ("acts", "neutral") if isinstance(ACTS[key], list) else ("acts",)


# ---- models that do not train


def test_an_untrained_model_does_not_read_how_to_train() -> None:
    xsum, sst2 = ("task=xsum", "method=none"), ("task=sst2", "method=none")
    for words in (xsum, sst2):
        assert _effect(words, "recipe.max_steps=7") == "neutral"
        assert _effect(words, "optim.name=adamw") == "neutral"
        assert _effect(words, "recipe.label_smoothing=0.3") == "acts", "the reported loss"
    assert _effect(xsum, "seed=1") == "neutral"
    assert _effect(sst2, "seed=1") == "acts", "a new classifier is random"
    trained = (*sst2, "head=trained")
    assert _effect(trained, "recipe.max_steps=7") == _effect(trained, "optim.name=adamw") == "acts"


def test_a_grid_with_an_untrained_model_may_set_the_recipe() -> None:
    words = ["task=sst2", "method=none", "recipe.max_steps=7", "recipe.eval_every=3"]
    plan(compose(words), words)


# ---- sizes


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (("method=mam", "composition@ffn=add"), "ffn.scale=3"),
        (("method=parallel_ffn",), "ffn.mlp_width=3"),
        (("method=ia3",), "attn.bottleneck=3"),
    ],
)
def test_a_size_that_nothing_takes_is_refused(words: Words, word: str) -> None:
    cfg = compose_once("task=sst2", *words).copy()
    key, _, value = word.partition("=")
    OmegaConf.update(cfg, key, int(value), force_add=True)
    with pytest.raises(Illegal, match=f"^{word} has no effect here: form .* do not take"):
        plan(cfg, [word])


# ---- alternatives


def test_epochs_beside_updates_are_refused() -> None:
    words = ["task=sst2", "method=mam", "recipe.max_steps=3", "recipe.epochs=2"]
    with pytest.raises(
        Illegal, match=r"^recipe\.epochs=2 has no effect here: recipe\.max_steps takes"
    ):
        plan(compose(words), words)
    same = [*words[:-1], "recipe.epochs=null"]
    assert plan(compose(same), same).run_id == plan(compose(words[:-1])).run_id


def test_null_says_that_a_key_has_no_effect() -> None:
    words = ["task=xsum", "method=mam", "scale=mini", "task.hub=null"]
    assert plan(compose(words), words).run_id == plan(compose(words[:-1])).run_id
