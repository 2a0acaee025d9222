"""On a GPU: CUDA graphs against single kernels, repeated runs and resumed runs, bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from attached_models import attach_method
from datasets import Dataset
from tiny_training import make_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from unipeft_run.config.schema import ComputeConfig, Precision
from unipeft_run.data.batching import Collator, train_loader
from unipeft_run.training.accumulation import GradientAccumulator
from unipeft_run.training.compute.plan import ComputeOptions
from unipeft_run.training.compute.shapes import ShapeGrid
from unipeft_run.training.losses import SequenceLoss
from unipeft_run.training.micro_batches import MicroBatch
from unipeft_run.training.precision import autocast_dtype, build_accelerator

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

GRID = ShapeGrid(pad_token_id=1, rows=4, longest=30, source=8, target=8)


def make_loader() -> DataLoader[dict[str, Tensor]]:
    """Return a loader of batches of four examples of different lengths, and one of two."""
    generator = torch.Generator().manual_seed(1)

    def ids(length: int) -> list[int]:
        return torch.randint(5, 90, (length,), generator=generator).tolist()

    rows = [{"input_ids": ids(3 + i), "labels": ids(2 + i % 5)} for i in range(14)]
    return train_loader(Dataset.from_list(rows), Collator(1, 2, multiple=1), seed=0, batch_size=4)


def train(folder: Path, method: str = "mam", *, steps: int = 8, **changed: Any) -> Any:
    """Train a tiny BART with dropout on a GPU; return the trainer."""
    torch.manual_seed(0)
    graphs, deterministic = changed.pop("graphs", True), changed.pop("deterministic", False)
    options = ComputeOptions(ComputeConfig(graphs=graphs), deterministic, GRID)
    trainer = make_trainer(
        folder,
        model=changed.pop("model", None) or attach_method(method, "bart")[0].train(),
        loader=make_loader(),
        loss_fn=SequenceLoss(0.1),
        compute=options,
        max_steps=steps,
        **{"checkpoint_every": 3, "precision": "bf16", "evaluate": None, **changed},
    )
    torch.manual_seed(5)
    trainer.fit()
    return trainer


def assert_same(a: nn.Module, b: nn.Module, tolerance: float = 0.0) -> None:
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        assert (p - q).abs().max() <= tolerance, name


@pytest.mark.parametrize("method", ["mam", "lora_ffn", "bitfit", "prompt", "full", "houlsby"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_graphs_give_the_gradients_of_single_kernels(method: str, precision: Precision) -> None:
    tolerance = 1e-3 if precision == "fp32" else 0.1
    plain = attach_method(method, "bart")[0].eval().cuda()  # no dropout: padding changes its draws
    graphed = copy.deepcopy(plain)
    batches = [MicroBatch(batch) for batch in make_loader()][:3]
    results = []
    for model, graphs in ((plain, False), (graphed, True)):
        accumulator = make_accumulator(model, precision, graphs)
        for _ in range(2):  # the second update replays what the first has recorded
            accumulator.clear()
            loss, norm = accumulator.accumulate(batches)
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append((loss, norm, gradients))
    assert results[1][:2] == pytest.approx(results[0][:2], rel=tolerance)
    assert results[0][2].keys() == results[1][2].keys()
    for name, gradient in results[0][2].items():
        difference = gradient - results[1][2][name]
        assert difference.norm() <= tolerance * gradient.norm() + 1e-6, name


def make_accumulator(model: nn.Module, precision: Precision, graphs: bool) -> GradientAccumulator:
    accumulator = GradientAccumulator(
        build_accelerator(precision),
        model,
        SequenceLoss(0.1),
        accumulation=3,
        weighting="targets",
        max_grad_norm=1.0,
        parallel="ddp",
        autocast=autocast_dtype(precision),
        grid=GRID,
    )
    accumulator.choose(ComputeOptions(ComputeConfig(graphs=graphs), grid=GRID), None)
    assert accumulator.plan.graphs == graphs
    return accumulator


@pytest.mark.parametrize("graphs", [False, True])
def test_a_run_repeats_its_bits(tmp_path: Path, graphs: bool) -> None:
    first, second = (train(tmp_path / str(i), graphs=graphs) for i in range(2))
    assert_same(first.model, second.model)


def test_deterministic_kernels_suffice(tmp_path: Path) -> None:
    first, second = (train(tmp_path / str(i), deterministic=True) for i in range(2))
    assert_same(first.model, second.model)


@pytest.mark.parametrize("graphs", [False, True])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path: Path, graphs: bool) -> None:
    whole = train(tmp_path / "whole", graphs=graphs)

    def stop(model: nn.Module, limit: int | None) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", graphs=graphs, evaluate=stop, eval_every=5)
    resumed = train(tmp_path / "parts", graphs=graphs)
    assert_same(whole.model, resumed.model)
