"""The step as a recorded graph against the plain step, with a recorder that works on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest
import tiny_vision
import torch
from attached_models import METHODS as ALL_METHODS
from attached_models import TASKS, attach_method
from tape import TapeRecorder
from tiny_compute import (
    GRID,
    assert_close,
    descend,
    gradients,
    make_accumulator,
    micro_batches,
)
from tiny_training import make_trainer
from torch import Tensor, nn
from transformers import masking_utils

from unipeft_run.config.schema import ComputeConfig
from unipeft_run.data.batching import IGNORED
from unipeft_run.training import accumulation, losses
from unipeft_run.training.compute import plan as plans
from unipeft_run.training.compute.plan import ComputeOptions, ComputePlan
from unipeft_run.training.compute.shapes import RowGrid, ShapeGrid
from unipeft_run.training.micro_batches import MicroBatch


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> type[TapeRecorder]:
    """Record graphs on a CPU, without its dropout, whose masks are drawn outside torch."""
    monkeypatch.setattr(masking_utils, "is_tracing", lambda tensor=None: True)  # as in a graph
    monkeypatch.setattr(accumulation, "fast_dropout", nullcontext)
    monkeypatch.setattr(accumulation, "CudaRecorder", TapeRecorder)
    monkeypatch.setattr(plans, "_has_graphs", lambda device: True)
    monkeypatch.setattr(TapeRecorder, "recordings", 0)
    return TapeRecorder


METHODS = [
    *(("bart", method) for method in ("mam", "full", "prompt", "mh_parallel", "bitfit")),
    *(("mbart", method) for method in ("mam", "houlsby", "prefix_lora_ffn")),
    *(("roberta", method) for method in ("mam", "full", "lora_attn", "prompt")),
]
OTHERS = [
    pytest.param(family, method, marks=pytest.mark.slow)
    for family, method in product(TASKS, ALL_METHODS)
    if (family, method) not in METHODS and method != "unipelt"  # see test_compute_plan.py
]


@pytest.mark.usefixtures("repeated")
@pytest.mark.parametrize(("family", "method"), [*METHODS, *OTHERS])
def test_graphs_give_the_gradients_of_the_plain_step(family: str, method: str) -> None:
    plain = attach_method(method, family)[0].double().eval()
    graphed = copy.deepcopy(plain)
    expected, ours = make_accumulator(plain), make_accumulator(graphed, keeps_padding=True)
    ours._prepare(ComputePlan(graphs=True))
    for seed in (1, 2):
        batches = micro_batches(family, seed)
        loss, norm = expected.accumulate(batches)
        assert ours.accumulate(batches) == pytest.approx((loss, norm), rel=1e-9)
        assert_close(gradients(graphed), gradients(plain), 1e-9)
        descend(plain), descend(graphed)
        expected.clear(), ours.clear()
    assert not any(g.abs().max() for g in gradients(graphed).values())
    assert not gradients(plain)


def test_a_shape_is_recorded_once_and_without_touching_the_random_state(
    repeated: type[TapeRecorder],
) -> None:
    model = attach_method("mam", "bart")[0].train()
    ours = make_accumulator(model, keeps_padding=True)
    ours._prepare(ComputePlan(graphs=True))
    results = []
    for _ in range(3):
        torch.manual_seed(3)
        results.append(ours.accumulate(micro_batches("bart", 1)))
        results.append(float(torch.rand(())))
        ours.clear()
    assert results[0:2] == results[2:4] == results[4:6]
    assert repeated.recordings == 2  # 4 x 8 and 4 x 16 sources: the batch of two is filled


@pytest.mark.parametrize(("family", "method"), METHODS)
def test_a_step_never_reads_from_the_device(
    monkeypatch: pytest.MonkeyPatch, family: str, method: str
) -> None:
    """Tensors on the meta device have no values to read."""
    monkeypatch.setattr(masking_utils, "is_tracing", lambda tensor=None: True)  # as in a graph
    monkeypatch.setattr(losses, "_matmul_dtype", lambda states: states.dtype)  # no autocast there
    model = attach_method(method, family)[0].to("meta").train()
    accumulator = make_accumulator(model, keeps_padding=True)
    batch = GRID.pad(micro_batches(family, 1)[2].batch)
    loss = accumulator._run({name: t.to("meta") for name, t in batch.items()}, 1.0)
    assert loss.is_meta
    assert any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.usefixtures("repeated")
@pytest.mark.parametrize(("failing", "good"), [("warm_up", 1), ("record", 0), ("record", 1)])
def test_where_recording_fails_steps_are_computed_without_graphs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failing: str, good: int
) -> None:
    """`good`: the number of calls that work. A warm-up may fail halfway."""
    works, calls = getattr(TapeRecorder, failing), count()

    def fail(self: TapeRecorder, function: Callable[[], Tensor]) -> Any:
        if next(calls) < good:
            return works(self, function)
        if failing == "warm_up":
            function()
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(TapeRecorder, failing, fail)
    plain = attach_method("mam", "bart")[0].double().eval()
    graphed = copy.deepcopy(plain)
    expected, ours = make_accumulator(plain), make_accumulator(graphed, keeps_padding=True)
    ours._prepare(ComputePlan(graphs=True))
    for _ in range(2):
        batches = micro_batches("bart", 1)
        loss, norm = expected.accumulate(batches)
        assert ours.accumulate(batches) == pytest.approx((loss, norm), rel=1e-9)
        assert_close(gradients(graphed), gradients(plain), 1e-9)
        expected.clear(), ours.clear()
    (message,) = (record.message for record in caplog.records)
    assert message.endswith("CUDA graphs: operation not permitted when stream is capturing.")
    assert ours.plan.graphs and not ours.describe()["graphs"]


@pytest.mark.usefixtures("repeated")
def test_a_step_that_fails_without_a_graph_too_raises_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accumulator = make_accumulator(attach_method("mam", "bart")[0])
    accumulator._prepare(ComputePlan(graphs=True))
    monkeypatch.setattr(accumulator, "loss_fn", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        accumulator.accumulate(micro_batches("bart", 1))


def test_the_gradients_of_an_interrupted_update_are_dropped() -> None:
    model = attach_method("mam", "bart")[0]
    accumulator = make_accumulator(model)
    accumulator.step(micro_batches("bart", 1)[0].batch, 1.0)
    assert gradients(model)
    accumulator.choose(ComputeOptions(), None)
    assert not gradients(model)


def test_padding_stops_at_the_positions_of_the_model_and_shows_a_token() -> None:
    batch = ShapeGrid(1, rows=4, longest=14, source=8, target=64).pad(
        micro_batches("bart", 1)[2].batch
        | {"input_ids": torch.full((2, 9), 5)}
        | {"attention_mask": torch.ones(2, 9, dtype=torch.long)}
    )
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "input_ids": (4, 14), "attention_mask": (4, 14),
        "labels": (4, 14), "decoder_input_ids": (4, 14),
    }  # fmt: skip
    assert batch["attention_mask"].sum(1).tolist() == [9, 9, 1, 1]
    assert (batch["labels"][2:] == IGNORED).all()


@pytest.mark.usefixtures("repeated")
def test_a_resumed_run_with_graphs_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    options = ComputeOptions(ComputeConfig(products="torch"), grid=ShapeGrid(0, 4, 6, source=6))

    def train(folder: Path, steps: int) -> nn.Module:
        trainer = make_trainer(folder, compute=options, max_steps=steps, checkpoint_every=5)
        trainer.fit()
        assert trainer.state.compute["graphs"]
        return trainer.model

    whole = train(tmp_path / "whole", 20)

    def stop(model: nn.Module, limit: int | None) -> dict[str, float]:
        raise KeyboardInterrupt

    stopped = make_trainer(
        tmp_path / "parts", compute=options, evaluate=stop, eval_every=12, checkpoint_every=5
    )
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    resumed = train(tmp_path / "parts", 20)
    for (name, p), q in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q), name


@pytest.mark.usefixtures("repeated")
def test_batches_of_images_are_padded_to_full_ones() -> None:
    def batch(count: int) -> MicroBatch:
        images = torch.randn(count, 3, tiny_vision.SIZE, tiny_vision.SIZE, dtype=torch.float64)
        return MicroBatch({"pixel_values": images, "labels": torch.arange(count) % 3})

    plain = tiny_vision.vit().double()
    graphed = copy.deepcopy(plain)
    options = {"accumulation": 2, "grid": RowGrid(4)}
    expected, ours = make_accumulator(plain, **options), make_accumulator(graphed, **options)
    ours._prepare(ComputePlan(graphs=True))
    batches = [batch(4), batch(3)]
    assert ours.accumulate(batches) == pytest.approx(expected.accumulate(batches), rel=1e-9)
    assert_close(gradients(graphed), gradients(plain), 1e-9)
    assert TapeRecorder.recordings == 1
