"""Invalid and illegal configurations, and their error messages."""

from __future__ import annotations

import inspect

import pytest
import yaml
from omegaconf import OmegaConf
from tiny_config import MAM, compose_once, resolved

from unipeft_run.config import compose, resolve
from unipeft_run.config.hydra_errors import FOREIGN_KEYS
from unipeft_run.config.messages import Illegal, groups
from unipeft_run.config.schema import ConsoleConfig, WandbConfig
from unipeft_run.errors import UserError
from unipeft_run.tracking.console import Console
from unipeft_run.tracking.wandb import WandB

ILLEGAL = {
    "form@ffn=memory": "queries of each head",
    "composition@ffn=gated": "attention logits",
    "composition@ffn=prepend": "need each other",
    "form@attn=bottleneck": "representation@attn=context",
    "insertion@attn=sequential": "computed from the queries",
    "insertion@ffn=post_norm": "representation@ffn=ffn_block",
    "representation@ffn=ffn_block": "insertion@ffn=post_norm",
    "representation@ffn=ffn_up_down insertion@ffn=sequential": "weight matrix",
    "representation@attn=ffn": "belongs to slot ffn",
    "representation@ffn=embedding": "belongs to slot input",
    "ffn.representation.sites=[ffn,ffn.down]": "ffn and ffn.down write to the same place",
    "form@input=vectors input.bottleneck=3": "slot input has no insertion",
    "attn=null ffn=null": "nothing trains",
    "ffn=null ffn.bottleneck=3": "slot ffn is empty",
    "backbone=roberta_base": "is of type seq2seq, but backbone roberta_base is of type class",
    "task=sst2 backbone=bart_large": "but backbone bart_large is of type seq2seq; use a",
    "backbone=t5_base evaluation.decoding.forced_bos=true": "t5 has no token <s>",
    "task=gsm8k evaluation.decoding.forced_bos=true": "no first token can be forced",
}


@pytest.mark.parametrize("words", ILLEGAL)
def test_illegal_combinations_state_the_reason(words: str) -> None:
    with pytest.raises(Illegal) as refusal:
        resolved(*MAM, *words.split())
    assert ILLEGAL[words] in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_only_method_none_may_train_nothing() -> None:
    assert resolved("task=sst2", "method=none")["unfreeze"] == []
    with pytest.raises(Illegal, match="nothing trains"):
        resolved("task=sst2", "method=bitfit", "unfreeze=[]")


@pytest.mark.parametrize(
    "word",
    [
        "seed=x", "seed=null", "seed=-1", "seed=1.5", "precision=fp17", "limit.train=0",
        "ffn.bottleneck=-1", "ffn.bottleneck=0", "ffn.bottleneck=2.5", "ffn.scale=0",
        "ffn.scale=nan", "ffn.scale=inf", "ffn.form.activation=sigmoid",
        "ffn.form.activation=softmax",
        "attn.form.activation=gelu", "ffn.form.activation=null", "ffn.form.bias=never",
        "ffn.composition.norm=none", "ffn.representation.layers=[0,0]", "attn.mlp_width=0",
        "ffn.form.dropout=1",
        "recipe.batch_size=0", "recipe.batch_size=null", "recipe.max_tokens=100",
        "recipe.max_steps=null", "recipe.warmup_ratio=1", "recipe.label_smoothing=1",
        "recipe.max_grad_norm=-1", "optim.lr=0", "optim.lr=1e-9", "optim.betas=[0.9]",
        "optim.schedule=linea", "evaluation.references=code", "evaluation.decoding.num_beams=0",
        "evaluation.decoding.min_length=1000", "evaluation.decoding.max_length=null",
        "evaluation.decoding.max_new_tokens=0",
        "backbone.weights=none", "tracking.wandb.mode=on", "attn.representation.layers=some",
        "attn.representation.sites=[attn.head]", "attn.representation.stacks=[]", "unfreeze=3",
        "attn=3", "foo=3", "ffn.foo=3", "seed=${foo}", "task.max_source_length=0",
        "task.name=0.5", "task.name=../elsewhere", "method=a/b",
        "ffn.form.rank=2.5", "ffn.form.rank=[1]", "attn.form.length=null",
        "attn.form.length=1000000000000000000000", "ffn.composition.scale=-1",
        "ffn.form._partial_=[1]",
        "ffn.form.foo=3", "attn.composition.foo=3", "tracking.wandb.foo=3", "tracking.wandb=3",
        "tracking.console=null", "tracking.foo=3", "task.path=''", "backbone.path=' '",
        "tracking.tensorboard=''", "output=''",
    ],
)  # fmt: skip
def test_a_wrong_value_gives_one_sentence_that_names_the_key(word: str) -> None:
    key, _, value = word.partition("=")
    cfg = compose_once(*MAM).copy()
    OmegaConf.update(cfg, key, yaml.safe_load(value), force_add=True)
    with pytest.raises(UserError) as refusal:
        resolve(cfg)
    sentence = str(refusal.value)
    assert "\n" not in sentence
    assert key in sentence or "recipe.max_steps" in sentence


DECODING = "evaluation.decoding"
XSUM = ("task=xsum", "method=lora_ffn", "scale=paper")
OWN = ("task=gsm8k", "method=lora_ffn", "scale=paper")


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ((*XSUM, f"{DECODING}.max_new_tokens=8"),
         f"min_length=10: must be at most 9, the start token and {DECODING}.max_new_tokens=8"),
        ((*XSUM, f"{DECODING}.max_length=9"),
         f"min_length=10: must be at most {DECODING}.max_length=9"),
        ((*OWN, f"{DECODING}.max_new_tokens=8", f"+{DECODING}.min_length=9"),
         f"min_length=9: must be at most {DECODING}.max_new_tokens=8"),
    ],
)  # fmt: skip
def test_a_text_can_be_as_long_as_it_must_be(words: tuple[str, ...], limit: str) -> None:
    with pytest.raises(UserError) as refusal:
        resolved(*words)
    assert str(refusal.value) == f"{DECODING}.{limit}"


@pytest.mark.parametrize(
    "words",
    [
        (*XSUM, f"{DECODING}.max_new_tokens=9"),
        (*OWN, f"{DECODING}.max_new_tokens=8", f"+{DECODING}.min_length=8"),
    ],
)
def test_a_text_may_have_the_shortest_length_only(words: tuple[str, ...]) -> None:
    resolved(*words)


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("recipe.max_stps=3", "recipe.max_steps"),
        ("lr=3", "optim.lr"),
        ("batch_size=3", "recipe.batch_size or|or recipe.batch_size"),
        ("bottleneck=3", "attn.bottleneck or ffn.bottleneck"),
        ("form@atn=memory", "form@attn"),
        ("form@attn=memry", "memory"),
        ("backbone=bart_larg", "bart_large"),
        ("form=memory", "form@attn="),
        ("scale=min", "mini"),
        ("ffn.form.rnk=3", "ffn.form.rank"),
        ("precision=bf61", "bf16"),
        ("model=bart", "backbone"),
        ("learning_rate=1", r"optim\.lr"),
        ("steps=100", r"recipe\.max_steps"),
        ("presets=null", "--help|did you mean"),
        ("resume=true", "a run resumes by itself: repeat its command"),
        ("resume_from_checkpoint=x", "a run resumes by itself"),
        ("+ffn.mlp_width=8", "there is no key ffn.mlp_width"),
        ("ffn.representation.sites=[ffn,ffn]", "names ffn twice"),
        ("ffn.composition=LearnedScale", "use composition@ffn=learned_scale$"),
        ("ffn.form=memry", r"form@ffn=memry is unknown \(did you mean memory\?\)"),
    ],
)
def test_unknown_names_suggest_the_nearest(word: str, nearest: str) -> None:
    with pytest.raises(UserError, match=nearest):
        resolved(*MAM, word)


def test_tracker_sections_match_their_constructors() -> None:
    for section, tracker in ((WandbConfig, WandB), (ConsoleConfig, Console)):
        options = inspect.signature(tracker).parameters.values()
        keywords = {p.name for p in options if p.kind is p.KEYWORD_ONLY} - {"console", "say"}
        assert set(section.model_fields) == keywords
    for word in ("tracking.wandb=null", "~tracking.wandb"):
        assert resolved(*MAM, word)["tracking"]["wandb"] is None


@pytest.mark.parametrize("word", FOREIGN_KEYS)
def test_keys_of_other_tools_suggest_ours(word: str) -> None:
    with pytest.raises(UserError, match="did you mean"):
        compose([*MAM, f"{word}=1"])
    cfg = compose_once(*MAM)
    for ours in FOREIGN_KEYS[word].split(" or "):
        assert ours in groups() or OmegaConf.select(cfg, ours, default="no") != "no"


def test_missing_overrides_are_named() -> None:
    with pytest.raises(UserError, match=r"task= one of .*sst2.* and method= one of .*mam"):
        compose([])
    with pytest.raises(UserError, match=r"give method= one of"):
        compose(["task=xsum"])
    with pytest.raises(UserError, match=r"ffn\.scale has no value"):
        resolved("task=xsum", "method=parallel_ffn", "composition@ffn=scaled")
    for sign in ("", "+", "++"):
        with pytest.raises(UserError, match=r"only composition@ffn=scaled takes a scale"):
            compose(["task=xsum", "method=parallel_ffn", f"{sign}ffn.scale=2"])
