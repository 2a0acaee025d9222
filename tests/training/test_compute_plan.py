"""How the steps of a run are computed: chosen at the start, recorded, kept by a resumed run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_training import make_model, make_trainer
from torch import nn

from unipeft_run.config.schema import ComputeConfig
from unipeft_run.errors import UserError
from unipeft_run.training.compute import plan as plans
from unipeft_run.training.compute.onednn import has_onednn
from unipeft_run.training.compute.plan import ComputeOptions, ComputePlan
from unipeft_run.training.compute.shapes import ShapeGrid

GRID = ShapeGrid(pad_token_id=1, rows=4, longest=30, source=8, target=8)
CPU = torch.device("cpu")


@pytest.mark.parametrize(("faster", "expected"), [(True, "onednn"), (False, "torch")])
def test_a_timing_chooses_the_products(
    monkeypatch: pytest.MonkeyPatch, faster: bool, expected: str
) -> None:
    monkeypatch.setattr(plans, "is_onednn_faster", lambda model: faster)
    plan = ComputePlan.choose(ComputeOptions(), make_model(), CPU, None)
    assert plan == ComputePlan(graphs=False, products=expected)
    half = ComputePlan.choose(ComputeOptions(), make_model(), CPU, torch.bfloat16)
    assert half.products == "torch"


def test_the_timing_runs() -> None:
    assert plans.is_onednn_faster(nn.Linear(64, 64)) in (True, False)
    assert not plans.is_onednn_faster(nn.Embedding(4, 4))


def test_graphs_need_a_gpu() -> None:
    options = ComputeOptions(ComputeConfig(graphs=True), grid=GRID)
    with pytest.raises(UserError, match=r"compute.graphs=true: CUDA graphs need one process"):
        ComputePlan.choose(options, make_model(), CPU, None)


def test_a_resumed_run_keeps_its_products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "is_onednn_faster", lambda model: has_onednn())
    first = make_trainer(tmp_path, max_steps=20)
    first.fit()
    monkeypatch.setattr(plans, "is_onednn_faster", lambda model: False)
    again = make_trainer(tmp_path, max_steps=20)
    assert again.fit().compute == first.fit().compute
    assert again.accumulator.plan == first.accumulator.plan
    assert first.accumulator.plan.products == ("onednn" if has_onednn() else "torch")


def test_a_checkpoint_of_an_older_version_has_the_plain_plan(tmp_path: Path) -> None:
    assert ComputePlan.resume({}, CPU) == ComputePlan()
