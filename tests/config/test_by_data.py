"""Values of a configuration that depend on the data."""

from __future__ import annotations

from hydra.core.singleton import Singleton
from omegaconf import OmegaConf

from unipeft_run.config import compose, resolve

WORDS = ["task=cifar100", "method=lora_attn", "scale=mini"]


def test_resolvers_survive_a_reset_of_hydras_state() -> None:
    """As when a launcher runs a cell in a process that has composed before."""
    state = Singleton.get_state()
    try:
        resolvers = {"oc.env": state["omegaconf_resolvers"]["oc.env"]}
        Singleton.set_state({**state, "omegaconf_resolvers": resolvers})
        assert not OmegaConf.has_resolver("class_names")
        compose(WORDS)
        assert OmegaConf.has_resolver("class_names") and OmegaConf.has_resolver("by_size")
    finally:
        Singleton.set_state(state)
    assert resolve(compose(["task=sst2", "method=mam", "scale=mini"]))
