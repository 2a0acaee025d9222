"""How the steps of a run are computed: chosen at the start, recorded, kept by a resumed run."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from attached_models import attach_method
from tiny_training import make_model, make_trainer

from unipeft_run import run
from unipeft_run.config import compose, plan
from unipeft_run.config.schema import ComputeConfig
from unipeft_run.errors import UserError
from unipeft_run.training.compute import onednn
from unipeft_run.training.compute import plan as plans
from unipeft_run.training.compute.onednn import has_onednn, is_onednn_faster
from unipeft_run.training.compute.plan import ComputeOptions, ComputePlan
from unipeft_run.training.compute.shapes import ShapeGrid

GRID = ShapeGrid(pad_token_id=1, rows=4, longest=30, source=8, target=8)
CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(not has_onednn(), reason="torch without oneDNN")


@pytest.mark.parametrize(("faster", "expected"), [(True, "onednn"), (False, "torch")])
def test_a_timing_chooses_the_products(
    monkeypatch: pytest.MonkeyPatch, faster: bool, expected: str
) -> None:
    monkeypatch.setattr(plans, "is_onednn_faster", lambda: faster)
    chosen = ComputePlan.choose(ComputeOptions(), make_model(), CPU, None)
    assert chosen == ComputePlan(graphs=False, products=expected)
    half = ComputePlan.choose(ComputeOptions(), make_model(), CPU, torch.bfloat16)
    assert half.products == "torch"


@needs_onednn
def test_the_timing_leaves_the_threads_as_they_were() -> None:
    threads = torch.get_num_threads()
    is_onednn_faster.cache_clear()
    assert is_onednn_faster() in (True, False)
    assert torch.get_num_threads() == threads


@needs_onednn
def test_slow_products_do_not_decide_the_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other work on the machine delays most products of MKL here, but not all."""
    time, delays = onednn._time, cycle([1.0, 1.0, 1.0, 0.0])

    def delayed(product: Any, x: torch.Tensor, weight: torch.Tensor) -> float:
        if product is onednn.multiply:
            return time(product, x, weight)
        return time(onednn.multiply, x, weight) + next(delays)

    monkeypatch.setattr(onednn, "_time", delayed)
    is_onednn_faster.cache_clear()
    assert not is_onednn_faster()
    is_onednn_faster.cache_clear()


def test_graphs_need_a_gpu() -> None:
    options = ComputeOptions(ComputeConfig(graphs=True), grid=GRID)
    with pytest.raises(UserError, match=r"compute\.graphs=true: CUDA graphs need one process"):
        ComputePlan.choose(options, make_model(), CPU, None)


def test_the_reason_against_graphs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "_has_graphs", lambda device: True)
    model, graphs = attach_method("mam", "bart")[0], ComputeConfig(graphs=True)
    with pytest.raises(UserError, match=r"graphs need batches of a few fixed shapes"):
        ComputePlan.choose(ComputeOptions(graphs), model, CPU, None)
    model.config.decoder_layerdrop = 0.1
    with pytest.raises(UserError, match=r"graphs need a model that has neither layerdrop nor"):
        ComputePlan.choose(ComputeOptions(graphs, grid=GRID), model, CPU, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has them")
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["precision=fp16"], r"precision=fp16 needs a GPU"),
        (["compute.graphs=true"], r"compute\.graphs=true: CUDA graphs need one process"),
        (["compute.products=onednn", "precision=bf16"], r"onednn: needs precision=fp32"),
    ],
)
def test_an_impossible_computation_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], reason: str
) -> None:
    monkeypatch.setattr(run, "load_inputs", lambda config: None)
    planned = plan(compose(["task=sst2", "method=mam", "scale=mini", f"output={tmp_path}", *words]))
    with pytest.raises(UserError, match=reason):
        run.run(planned)
    assert not planned.folder.exists(), "no run was begun"


def test_a_resumed_run_keeps_its_products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "is_onednn_faster", lambda: has_onednn())
    first = make_trainer(tmp_path, compute=ComputeOptions())
    first.fit()
    monkeypatch.setattr(plans, "is_onednn_faster", lambda: False)
    again = make_trainer(tmp_path, compute=ComputeOptions())
    assert again.fit().compute == first.fit().compute
    assert first.state.compute is not None
    assert first.state.compute["products"] == ("onednn" if has_onednn() else "torch")


def test_gates_that_see_padding_exclude_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs pad batches."""
    monkeypatch.setattr(plans, "_has_graphs", lambda device: True)
    model, options = attach_method("unipelt", "bart")[0], ComputeOptions(grid=GRID)
    assert not ComputePlan.choose(options, model, CPU, None).graphs
    with pytest.raises(UserError, match="graphs need deltas whose output does not depend on"):
        ComputePlan.choose(replace(options, config=ComputeConfig(graphs=True)), model, CPU, None)


def test_layerdrop_excludes_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "_has_graphs", lambda device: True)
    model, options = attach_method("mam", "bart")[0], ComputeOptions(grid=GRID)
    assert ComputePlan.choose(options, model, CPU, None).graphs
    model.config.decoder_layerdrop = 0.1
    assert not ComputePlan.choose(options, model, CPU, None).graphs


def test_products_of_another_device_or_type_are_torchs() -> None:
    recorded = {"graphs": True, "products": "onednn"}
    cuda = torch.device("cuda")
    assert ComputePlan.resume(recorded, cuda, None).products == "torch"
    assert ComputePlan.resume(recorded, CPU, torch.bfloat16) == ComputePlan()
    for device, autocast in ((cuda, None), (CPU, torch.bfloat16)):
        with pytest.raises(UserError, match=r"onednn: needs precision=fp32, a CPU"):
            ComputePlan.choose(
                ComputeOptions(ComputeConfig(products="onednn")), make_model(), device, autocast
            )


def test_a_checkpoint_of_an_older_version_has_the_plain_plan(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.state.compute = {"graphs": False, "products": "onednn"}
    content = trainer.state.gather()
    del content.state["training"]["compute"]
    trainer.state.restore(content)
    assert trainer.state.compute == {}
    assert ComputePlan.resume(trainer.state.compute, CPU, None) == ComputePlan()
