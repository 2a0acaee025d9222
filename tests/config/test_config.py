"""Composing configurations: one override changes one axis, and illegal combinations are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from tiny_config import MAM, configured, resolved

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.config import compose
from unipeft_run.config.design_space import SIZES, Point, combinations, find_objections
from unipeft_run.config.legality import SITES
from unipeft_run.config.schema import AXES
from unipeft_run.errors import UserError


def test_a_slot_has_four_axes() -> None:
    ffn = resolved(*MAM)["ffn"]
    assert ffn["form"]["_target_"] == "unipeft_run.deltas.forms.bottleneck.Bottleneck"
    assert (ffn["form"]["rank"], ffn["composition"]["scale"]) == (512, 4)
    assert (ffn["insertion"], ffn["representation"]["sites"]) == ("parallel", ["ffn"])


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("composition@ffn=add", "ffn.composition._target_", "unipeft_run.deltas.compositions.Add"),
        ("insertion@ffn=sequential", "ffn.insertion", "sequential"),
        ("form@ffn=low_rank", "ffn.form.activation", "identity"),
        ("ffn.bottleneck=7", "ffn.form.rank", 7),
        ("ffn.scale=2", "ffn.composition.scale", 2),
        (
            "composition@attn=add",
            "attn.composition._target_",
            "unipeft_run.deltas.compositions.Add",
        ),
        ("form@attn=memory_relu", "attn.form.activation", "relu"),
        ("ffn=null", "ffn", None),
        ("optim=adamw", "optim.name", "adamw"),
        ("recipe=mini/xsum", "recipe.max_steps", 500),
    ],
)
def test_one_override_changes_one_axis(override: str, path: str, value: Any) -> None:
    before, after = resolved(*MAM), resolved(*MAM, override)
    assert OmegaConf.select(OmegaConf.create(after), path) == value
    assert OmegaConf.select(OmegaConf.create(before), path) != value
    assert after["task"] == before["task"] or override.startswith("recipe")


def test_swapping_an_axis_keeps_the_sizes() -> None:
    slot = resolved(*MAM, "form@attn=bottleneck", "representation@attn=context",
                    "composition@attn=add")["attn"]  # fmt: skip
    assert (slot["bottleneck"], slot["form"]["rank"]) == (30, 30)


def test_swapping_the_form_drops_the_mlp_width() -> None:
    mini = ("task=xsum", "method=mh_parallel", "scale=mini")
    assert resolved(*mini)["attn"]["form"]["mlp_width"] is None
    swapped = resolved(*mini, "form@attn=bottleneck_attn", "representation@attn=context")
    assert "mlp_width" not in swapped["attn"]["form"]
    assert resolved("task=xsum", "method=prefix")["attn"]["form"]["mlp_width"] == 800


def test_an_empty_slot_is_filled_from_the_command_line() -> None:
    axes = ("form=bottleneck", "insertion=parallel", "representation=ffn", "composition=add")
    overrides = [axis.replace("=", "@ffn=") for axis in axes]
    config = resolved("task=sst2", "method=bitfit", *overrides, "ffn.bottleneck=8")
    assert config["ffn"]["form"]["rank"] == 8
    assert config["unfreeze"] == ["*bias"]


@pytest.mark.parametrize("slot", ["attn", "ffn", "input", "matrix"])
def test_legal_combinations_at_one_representation(slot: str) -> None:
    """Combine all forms, insertions and compositions at one representation per slot."""
    places = {"attn": "heads", "ffn": "ffn", "input": "embedding", "matrix": "key_value"}
    points = combinations(slot, {"representation": places[slot]})
    legal = {(p.form, p.insertion, p.composition) for p in points if not find_objections(p)}
    linear = {"low_rank", "low_rank_shared"}
    bottlenecks = {f"bottleneck{end}" for end in ("", "_attn", "_zero", "_plain", "_tanh")}
    adapters = {*bottlenecks, *linear, "hypercomplex"}
    memories = {"memory", "memory_nomlp", "memory_relu"}
    adding = {"add", "scaled", "learned_scale", "input_gate"}
    insertions = ("parallel", "sequential", "residual")
    expected = {
        "attn": {(f, "parallel", c) for f in memories for c in {*adding, "gated", "gated_memory"}},
        "ffn": {(f, i, c) for f in adapters for i in insertions for c in adding}
        | {("factors", i, "rescale") for i in insertions},
        "input": {("vectors", "parallel", "prepend")},
        "matrix": {(f, "parallel", c) for f in adapters for c in adding}
        | {(f, "parallel", "magnitude") for f in linear}
        | {("factors", "parallel", "rescale")},
    }
    assert legal == expected[slot]


@pytest.mark.parametrize(
    "point",
    [
        Point("attn", "memory_nomlp", "parallel", "heads", "gated"),
        Point("ffn", "low_rank", "parallel", "ffn_up_down", "scaled"),
        Point("input", "vectors", "parallel", "embedding", "prepend"),
    ],
    ids=lambda point: point.slot,
)
def test_a_point_equals_the_configuration_of_its_overrides(point: Point) -> None:
    sizes = [f"{point.slot}.{key}={number}" for key, number in SIZES.items()]
    sizes = [size for size in sizes if point.slot == "ffn" or "scale" not in size]
    slot = configured("task=xsum", "method=none", *point.overrides, *sizes).slots()[point.slot]
    composed = point.compose()
    assert all(getattr(slot, axis) == getattr(composed, axis) for axis in AXES)


def test_sites_are_those_of_the_backbone_tables() -> None:
    ours = {site for sites in SITES.values() for site in sites} - {"embedding"}
    for table in FAMILIES.values():
        assert {*table.ffn, *table.attention} <= ours
    assert ours == {site for f in FAMILIES.values() for site in (*f.ffn, *f.attention)}


def test_max_steps_overrides_epochs() -> None:
    recipe = resolved("task=mnli", "method=mam", "recipe.max_steps=5")["recipe"]
    assert (recipe["max_steps"], recipe["epochs"]) == (5, None)


def test_epochs_on_the_command_line_override_max_steps() -> None:
    overrides = ("task=sst2", "method=mam", "scale=mini", "recipe.epochs=3")
    recipe = resolved(*overrides)["recipe"]
    assert (recipe["max_steps"], recipe["epochs"]) == (None, 3)
    recipe = resolved(*overrides, "recipe.max_steps=5")["recipe"]
    assert (recipe["max_steps"], recipe["epochs"]) == (5, None)


def test_a_user_defined_form_is_found_on_the_search_path(tmp_path: Path) -> None:
    (tmp_path / "form").mkdir()
    (tmp_path / "form" / "doubled.yaml").write_text(
        "bottleneck: ???\n"
        "form:\n"
        "  _target_: my_forms.Doubled\n"
        "  _partial_: true\n"
        "  rank: ${..bottleneck}\n"
        "  activation: silu\n"
    )
    search_path = f"hydra.searchpath=[file://{tmp_path}]"
    form = resolved(*MAM, search_path, "form@ffn=doubled")["ffn"]["form"]
    assert form == {
        "_target_": "my_forms.Doubled",
        "_partial_": True,
        "rank": 512,
        "activation": "silu",
    }
    with pytest.raises(UserError, match=r"form@ffn=double is unknown \(did you mean doubled\?\)"):
        compose([*MAM, search_path, "form@ffn=double"])


# Templates


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("{prompt}", "{prompt}"),
        ("Q: {prompt}, please\\nA:", "Q: {prompt}, please\nA:"),
        ("it's {prompt}", "it's {prompt}"),
        ("'{prompt} [x]'", "{prompt} [x]"),
        ("2024", "2024"),
        ("true", "true"),
    ],
)
def test_templates_are_texts_on_the_command_line(given: str, text: str, tmp_path: Path) -> None:
    data = tmp_path / "pairs.csv"
    data.write_text("prompt,response\n" + "a,b\n" * 30)
    words = ["task=causal_lm", f"data={data}", "method=none", "scale=mini"]
    assert compose([*words, f"prompt_template={given}"]).task.prompt_template == text
