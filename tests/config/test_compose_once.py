"""Configurations composed from shared choices against Hydra's own composition."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from unipeft_run.config import compose
from unipeft_run.config.compose import _load, normalise_overrides
from unipeft_run.errors import UserError

PLAIN = ["task=sst2", "method=mam", "scale=mini"]
VALUES = [
    ["seed=7"],
    ["output=~/runs", "recipe.max_steps=20", "optim.lr=1e-3"],
    ["ffn.bottleneck=32", "limit.train=null"],
    ["recipe.max_steps=20", "recipe.max_steps=30"],
    ["tracking.wandb.tags=[a,b]", "task.path='a b/c=d'"],
    ["tracking.wandb.name=${task.name}", "backbone.path=data/2024"],
    ["deterministic=true", "+limit.train=5"],
]


@pytest.mark.parametrize("values", VALUES, ids=" ".join)
def test_values_are_set_as_hydra_sets_them(values: list[str]) -> None:
    compose(PLAIN)
    words = tuple(normalise_overrides([*PLAIN, *values]))
    composed, expected = compose([*PLAIN, *values]), _load("train", words, None)
    assert OmegaConf.to_container(composed) == OmegaConf.to_container(expected)
    assert OmegaConf.is_struct(composed) == OmegaConf.is_struct(expected)


def test_a_composed_configuration_is_ones_own() -> None:
    first = compose(PLAIN)
    first.seed = 1
    assert compose(PLAIN).seed == 42


@pytest.mark.parametrize("word", ["recipe.max_stepz=3", "optim.lr=1,2", "seed=1,2", "ffn.x.y=1"])
def test_wrong_values_have_hydras_message(word: str) -> None:
    with pytest.raises(UserError):
        compose([*PLAIN, word])
