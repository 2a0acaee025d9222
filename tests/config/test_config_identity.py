"""Run ids and run folders of configurations, and reading a configuration from its run folder."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_config import MAM, configured, resolved

from unipeft_run.config import compose, load, plan, run_id
from unipeft_run.config.resolve import resolve_data
from unipeft_run.errors import UserError


def identity(*overrides: str) -> str:
    return run_id(configured(*overrides))


def _shuffled(node: Any, rng: random.Random) -> Any:
    if not isinstance(node, Mapping):
        return node
    items = [(key, _shuffled(value, rng)) for key, value in node.items()]
    rng.shuffle(items)
    return dict(items)


def test_a_run_id_is_eight_hex_digits_whatever_the_order_of_the_keys() -> None:
    config, rng = configured(*MAM), random.Random(0)
    assert len(run_id(config)) == 8 and int(run_id(config), 16) >= 0
    shuffled = [resolve_data(_shuffled(config.plain(), rng)) for _ in range(5)]
    assert {run_id(other) for other in shuffled} == {run_id(config)}


def test_a_run_id_survives_a_round_trip_through_yaml() -> None:
    config = configured(*MAM)
    assert run_id(resolve_data(yaml.safe_load(yaml.safe_dump(config.plain())))) == run_id(config)


@pytest.mark.parametrize(
    "word",
    [
        "output=elsewhere", "tracking=local", "tracking.wandb.project=x", "force=true",
        "recipe.log_every=7", "recipe.checkpoint_every=7", "debug=none", "ffn.scale=4.0",
        "hydra.job.name=x", "recipe.epochs=null",
    ],
)  # fmt: skip
def test_non_scientific_keys_do_not_change_the_run_id(word: str) -> None:
    assert identity(*MAM, word) == identity(*MAM)


@pytest.mark.parametrize(
    "word",
    [
        "seed=1", "ffn.bottleneck=511", "ffn.scale=2", "composition@ffn=add", "optim.lr=1e-4",
        "optim=adamw", "recipe.max_steps=5", "limit.train=100", "precision=bf16", "task.path=x",
        "backbone.weights=random", "evaluation.references=reference_code", "unfreeze=[a]",
    ],
)  # fmt: skip
def test_scientific_keys_change_the_run_id(word: str) -> None:
    assert identity(*MAM, word) != identity(*MAM)


def test_equal_configurations_under_two_method_names_are_one_run() -> None:
    swapped = ["task=xsum", "method=scaled_parallel_ffn", "composition@ffn=add",
               "form@ffn=bottleneck", "ffn.bottleneck=200"]  # fmt: skip
    assert identity(*swapped) == identity("task=xsum", "method=parallel_ffn")


def test_a_run_folder_is_output_task_method_id() -> None:
    planned = plan(compose([*MAM, "output=here"]))
    assert planned.folder == Path("here/xsum/mam") / planned.run_id


# ---- reading a run folder


def test_a_run_folder_is_read_back_as_data(tmp_path: Path) -> None:
    config = configured(*MAM)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.plain()))
    assert load(tmp_path) == config


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "unipeft_run.cli.sys.exit", "unipeft_run.config.identity.Path",
        "unipeft_run.deltas.forms.bottleneck.nn.Linear", "unipeft_run.evil",
        "unipeft_run..cli.Command",
        "unipeft_runaway.Evil", "unipeft_run.cli.train", 3,
    ],
)  # fmt: skip
def test_foreign_classes_in_a_run_folder_are_refused(tmp_path: Path, target: Any) -> None:
    mam = resolved(*MAM, "composition@attn=add")
    config = {**mam, "attn": {**mam["attn"], "form": {"_target_": target}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="names the class"):
        load(tmp_path)
    if target == "os.system":
        trusted = load(tmp_path, allow=["os."]).attn
        assert trusted is not None and trusted.form.target == target


@pytest.mark.parametrize("text", ["a: [1", "- 1", "a: !!python/object/apply:os.getcwd []",
                                  "a: ${oc.env:HOME}", ""])  # fmt: skip
def test_a_damaged_configuration_gives_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError) as refusal:
        load(tmp_path)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_folder_without_a_configuration_is_not_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        load(tmp_path / "nowhere")
