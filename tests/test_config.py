"""Composition of the axes, what is refused and in which words, and which run it is."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from unipeft_run.backbones.sites import TABLES
from unipeft_run.config import compose, load, resolve, run_folder, run_id
from unipeft_run.config.space import SITES
from unipeft_run.config.words import Illegal, options
from unipeft_run.errors import UserError

MAM = ("task=xsum", "method=mam")


compose_once = cache(lambda *words: compose(words))


@cache
def resolved(*overrides: str) -> dict[str, Any]:
    return resolve(compose(overrides))


def identity(*overrides: str) -> str:
    return run_id(resolved(*overrides))


def test_the_equation_of_a_slot_is_four_words() -> None:
    ffn = resolved(*MAM)["ffn"]
    assert ffn["form"]["_target_"] == "unipeft_run.forms.bottleneck.Bottleneck"
    assert (ffn["form"]["rank"], ffn["composition"]["scale"]) == (512, 4)
    assert (ffn["insertion"], ffn["representation"]["sites"]) == ("parallel", ["ffn"])


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("composition@ffn=add", "ffn.composition._target_", "unipeft_run.compositions.Add"),
        ("insertion@ffn=sequential", "ffn.insertion", "sequential"),
        ("form@ffn=low_rank", "ffn.form.activation", "identity"),
        ("ffn.bottleneck=7", "ffn.form.rank", 7),
        ("ffn.scale=2", "ffn.composition.scale", 2),
        ("composition@attn=add", "attn.composition._target_", "unipeft_run.compositions.Add"),
        ("form@attn=memory_relu", "attn.form.activation", "relu"),
        ("ffn=null", "ffn", None),
        ("optim=adamw", "optim.name", "adamw"),
        ("recipe=mini/xsum", "recipe.max_steps", 500),
    ],
)
def test_one_word_swaps_one_axis(override: str, path: str, value: Any) -> None:
    before, after = resolved(*MAM), resolved(*MAM, override)
    assert OmegaConf.select(OmegaConf.create(after), path) == value
    assert OmegaConf.select(OmegaConf.create(before), path) != value
    assert after["task"] == before["task"] or override.startswith("recipe")


def test_swapping_an_axis_keeps_the_numbers() -> None:
    slot = resolved(*MAM, "form@attn=bottleneck", "representation@attn=context",
                    "composition@attn=add")["attn"]  # fmt: skip
    assert (slot["bottleneck"], slot["form"]["rank"]) == (30, 30)


def test_an_empty_slot_is_filled_from_the_command_line() -> None:
    axes = ("form=bottleneck", "insertion=parallel", "representation=ffn", "composition=add")
    words = [word.replace("=", "@ffn=") for word in axes]
    config = resolved("task=sst2", "method=bitfit", *words, "ffn.bottleneck=8")
    assert config["ffn"]["form"]["rank"] == 8
    assert config["unfreeze"] == ["*bias"]


@pytest.mark.parametrize("slot", ["attn", "ffn", "input"])
def test_every_pairing_of_axis_values_is_legal_or_says_why(slot: str) -> None:
    """All forms, insertions and compositions at one representation each."""
    where = {"attn": "heads", "ffn": "ffn", "input": "embedding"}[slot]
    base = ["task=xsum", "method=none", f"representation@{slot}={where}"]
    base += [f"form@{slot}=bottleneck", f"insertion@{slot}=parallel", f"composition@{slot}=scaled"]
    cfg = compose([*base, f"{slot}.bottleneck=4", f"{slot}.scale=1"])
    pieces = {axis: _pieces(axis) for axis in ("form", "insertion", "composition")}
    legal = set()
    for form in pieces["form"]:
        for insertion in pieces["insertion"]:
            for composition in pieces["composition"]:
                cfg[slot].form, cfg[slot].insertion, cfg[slot].composition = (
                    pieces["form"][form],
                    pieces["insertion"][insertion],
                    pieces["composition"][composition],
                )
                try:
                    resolve(cfg)
                    legal.add((form, insertion, composition))
                except Illegal as reason:
                    assert str(reason).startswith(f"slot {slot}: ")
    bottlenecks = {"bottleneck", "bottleneck_attn", "bottleneck_zero", "low_rank"}
    memories = {"memory", "memory_nomlp", "memory_relu"}
    adding = {"add", "scaled", "learned_scale"}
    expected = {
        "attn": {(f, "parallel", c) for f in memories for c in {*adding, "gated"}},
        "ffn": {(f, i, c) for f in bottlenecks for i in ("parallel", "sequential") for c in adding},
        "input": {("vectors", "parallel", "prepend")},
    }
    assert legal == expected[slot]


@cache
def _pieces(axis: str) -> dict[str, Any]:
    """What each file of an axis puts into a slot."""
    words = ["task=xsum", "method=none"]
    return {name: compose([*words, f"{axis}@ffn={name}"]).ffn[axis] for name in options(axis)}


def test_sites_are_those_of_the_backbone_tables() -> None:
    ours = {site for sites in SITES.values() for site in sites} - {"embedding"}
    for table in TABLES.values():
        assert ours == {*table.ffn, *table.attention, "attn.heads"} - {"embedding"}


ILLEGAL = {
    "form@ffn=memory": "queries of each head",
    "composition@ffn=gated": "attention logits",
    "composition@ffn=prepend": "need each other",
    "form@attn=bottleneck": "representation@attn=context",
    "insertion@attn=sequential": "queries, not from what the heads put out",
    "insertion@ffn=post_norm": "representation@ffn=ffn_block",
    "representation@ffn=ffn_block": "insertion@ffn=post_norm",
    "representation@ffn=ffn_up_down insertion@ffn=sequential": "weight matrix",
    "representation@attn=ffn": "belongs to slot ffn",
    "representation@ffn=embedding": "belongs to slot input",
    "form@input=vectors input.bottleneck=3": "slot input has no insertion",
    "attn=null ffn=null": "nothing trains",
    "ffn=null ffn.bottleneck=3": "slot ffn is empty",
    "backbone=roberta_base": "generates text",
    "task=sst2 backbone=bart_large": "chooses a class",
}


@pytest.mark.parametrize("words", ILLEGAL)
def test_what_means_nothing_together_is_illegal_with_its_reason(words: str) -> None:
    with pytest.raises(Illegal) as refusal:
        resolved(*MAM, *words.split())
    assert ILLEGAL[words] in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_none_alone_trains_nothing() -> None:
    assert resolved("task=sst2", "method=none")["unfreeze"] == []
    with pytest.raises(Illegal, match="nothing trains"):
        resolved("task=sst2", "method=bitfit", "unfreeze=[]")


@pytest.mark.parametrize(
    "word",
    [
        "seed=x", "seed=null", "seed=-1", "seed=1.5", "precision=fp17", "limit.train=0",
        "ffn.bottleneck=-1", "ffn.bottleneck=0", "ffn.bottleneck=2.5", "ffn.scale=0",
        "ffn.scale=nan", "ffn.scale=inf", "ffn.form.activation=sigmoid", "ffn.form.dropout=1",
        "recipe.batch_size=0", "recipe.batch_size=null", "recipe.max_tokens=100",
        "recipe.max_steps=null", "recipe.warmup_ratio=1", "recipe.label_smoothing=1",
        "recipe.max_grad_norm=-1", "optim.lr=0", "optim.lr=1e-9", "optim.betas=[0.9]",
        "optim.schedule=linea", "evaluation.references=code", "evaluation.decoding.num_beams=0",
        "backbone.weights=none", "tracking.wandb.mode=on", "attn.representation.layers=some",
        "attn.representation.sites=[attn.head]", "attn.representation.stacks=[]", "unfreeze=3",
        "attn=3", "foo=3", "ffn.foo=3", "seed=${foo}", "task.max_source_length=0",
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_sentence_that_names_its_key(word: str) -> None:
    key, _, value = word.partition("=")
    cfg = compose_once(*MAM).copy()
    OmegaConf.update(cfg, key, yaml.safe_load(value), force_add=True)
    with pytest.raises(UserError) as refusal:
        resolve(cfg)
    sentence = str(refusal.value)
    assert "\n" not in sentence
    assert key in sentence or "recipe.max_steps" in sentence


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
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest(word: str, nearest: str) -> None:
    with pytest.raises(UserError, match=nearest):
        resolved(*MAM, word)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UserError, match=r"task= one of .*sst2.* and method= one of .*mam"):
        compose([])
    with pytest.raises(UserError, match=r"give method= one of"):
        compose(["task=xsum"])
    with pytest.raises(UserError, match=r"ffn\.scale has no number"):
        resolved("task=xsum", "method=parallel_ffn", "composition@ffn=scaled")
    with pytest.raises(UserError, match=r"composition@ffn=scaled is what takes a scale"):
        compose(["task=xsum", "method=parallel_ffn", "ffn.scale=2"])


def test_max_steps_stands_over_epochs() -> None:
    recipe = resolved("task=mnli", "method=mam", "recipe.max_steps=5")["recipe"]
    assert (recipe["max_steps"], recipe["epochs"]) == (5, None)


# ---- identity


def _shuffled(node: Any, rng: random.Random) -> Any:
    if not isinstance(node, Mapping):
        return node
    items = [(key, _shuffled(value, rng)) for key, value in node.items()]
    rng.shuffle(items)
    return dict(items)


def test_a_run_id_is_eight_hex_digits_whatever_the_order_of_the_keys() -> None:
    cfg = compose(MAM)
    config, rng = resolve(cfg), random.Random(0)
    assert len(run_id(cfg)) == 8 and int(run_id(cfg), 16) >= 0
    assert {run_id(_shuffled(config, rng)) for _ in range(5)} == {run_id(cfg)} == {run_id(config)}


def test_a_run_id_survives_writing_the_configuration_down() -> None:
    config = resolved(*MAM)
    assert run_id(yaml.safe_load(yaml.safe_dump(config))) == run_id(config)


@pytest.mark.parametrize(
    "word",
    [
        "output=elsewhere", "tracking=local", "tracking.wandb.project=x", "force=true",
        "recipe.log_every=7", "recipe.checkpoint_every=7", "debug=none", "ffn.scale=4.0",
        "hydra.job.name=x", "recipe.epochs=3",
    ],
)  # fmt: skip
def test_what_does_not_change_the_numbers_does_not_change_the_id(word: str) -> None:
    assert identity(*MAM, word) == identity(*MAM)


@pytest.mark.parametrize(
    "word",
    [
        "seed=1", "ffn.bottleneck=511", "ffn.scale=2", "composition@ffn=add", "optim.lr=1e-4",
        "optim=adamw", "recipe.max_steps=5", "limit.train=100", "precision=bf16", "task.path=x",
        "backbone.weights=random", "evaluation.references=reference_code", "unfreeze=[a]",
    ],
)  # fmt: skip
def test_what_changes_the_numbers_changes_the_id(word: str) -> None:
    assert identity(*MAM, word) != identity(*MAM)


def test_the_same_science_under_two_names_is_the_same_run() -> None:
    swapped = ["task=xsum", "method=scaled_parallel_ffn", "composition@ffn=add",
               "form@ffn=bottleneck", "ffn.bottleneck=200"]  # fmt: skip
    assert identity(*swapped) == identity("task=xsum", "method=parallel_ffn")


def test_a_run_folder_is_output_task_method_id() -> None:
    cfg = compose([*MAM, "output=here"])
    assert run_folder(cfg) == Path("here/xsum/mam") / run_id(cfg)


# ---- reading a run folder


def test_a_run_folder_is_read_back_as_data(tmp_path: Path) -> None:
    config = resolved(*MAM)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert load(tmp_path) == config


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "unipeft_run.cli.sys.exit", "unipeft_run.config.identity.Path",
        "unipeft_run.forms.bottleneck.nn.Linear", "unipeft_run.evil", "unipeft_run..cli.Command",
        "unipeft_runaway.Evil", "unipeft_run.cli.train", 3,
    ],
)  # fmt: skip
def test_a_run_folder_names_only_our_own_classes(tmp_path: Path, target: Any) -> None:
    config = {"attn": {"form": {"_target_": target}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="wants to run"):
        load(tmp_path)
    assert load(tmp_path, allow=[str(target)]) == config


@pytest.mark.parametrize("text", ["a: [1", "- 1", "a: !!python/object/apply:os.getcwd []",
                                  "a: ${oc.env:HOME}", ""])  # fmt: skip
def test_a_damaged_configuration_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError) as refusal:
        load(tmp_path)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_folder_without_a_configuration_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        load(tmp_path / "nowhere")


# ---- extension


def test_a_form_of_your_own_is_a_file_on_the_search_path(tmp_path: Path) -> None:
    (tmp_path / "form").mkdir()
    (tmp_path / "form" / "doubled.yaml").write_text(
        "bottleneck: ???\n"
        "form:\n"
        "  _target_: my_forms.Doubled\n"
        "  _partial_: true\n"
        "  rank: ${..bottleneck}\n"
        "  activation: silu\n"
    )
    there = f"hydra.searchpath=[file://{tmp_path}]"
    form = resolved(*MAM, there, "form@ffn=doubled")["ffn"]["form"]
    assert form == {
        "_target_": "my_forms.Doubled",
        "_partial_": True,
        "rank": 512,
        "activation": "silu",
    }
    with pytest.raises(UserError, match=r"form@ffn=double is not known \(did you mean doubled\?\)"):
        compose([*MAM, there, "form@ffn=double"])
