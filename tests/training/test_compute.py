"""The fast ways to compute a step against the plain one: graphs, casts, oneDNN, shared prefixes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from attached_models import attach_method
from tiny_training import make_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import masking_utils

from unipeft_run.data.batching import IGNORED, Collator
from unipeft_run.errors import UserError
from unipeft_run.runs.folder import RunFolder
from unipeft_run.training import accumulation, losses
from unipeft_run.training.accumulation import GradientAccumulator
from unipeft_run.training.compute import plan as plans
from unipeft_run.training.compute.dropout import draw_mask, fast_dropout
from unipeft_run.training.compute.linears import cast_frozen_linears, replaced_forwards
from unipeft_run.training.compute.memories import SharedMemories
from unipeft_run.training.compute.onednn import has_onednn, onednn_linears
from unipeft_run.training.compute.plan import ComputeOptions, ComputePlan
from unipeft_run.training.compute.shapes import ShapeGrid
from unipeft_run.training.losses import ClassificationLoss, SequenceLoss
from unipeft_run.training.micro_batches import MicroBatch

GRID = ShapeGrid(pad_token_id=1, rows=4, longest=30, source=8, target=8)
CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(not has_onednn(), reason="torch without oneDNN")


class RepeatRecorder:
    """Repeats the function itself where a GPU would repeat its kernels."""

    recordings = 0

    def warm_up(self, function: Callable[[], object]) -> None:
        function()

    def record(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        type(self).recordings += 1
        return lambda: function().clone()


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> type[RepeatRecorder]:
    """Record graphs on a CPU."""
    monkeypatch.setattr(accumulation, "CudaRecorder", RepeatRecorder)
    monkeypatch.setattr(plans, "_has_graphs", lambda device: True)
    monkeypatch.setattr(RepeatRecorder, "recordings", 0)
    return RepeatRecorder


def micro_batches(family: str, seed: int) -> list[MicroBatch]:
    """Return batches of 4, 4 and 2 examples of different lengths."""
    generator = torch.Generator().manual_seed(seed)

    def ids(length: int) -> list[int]:
        return torch.randint(5, 90, (length,), generator=generator).tolist()

    def rows(count: int, source: int) -> list[dict[str, Any]]:
        if family == "roberta":
            return [{"input_ids": ids(source + i), "labels": i % 3} for i in range(count)]
        return [{"input_ids": ids(source + i), "labels": ids(2 + 2 * i)} for i in range(count)]

    collate = Collator(1, None if family == "roberta" else 2, multiple=1)
    return [MicroBatch(collate(rows(count, n))) for count, n in ((4, 3), (4, 11), (2, 4))]


def make_accumulator(model: Any, **changed: Any) -> GradientAccumulator:
    is_text = hasattr(model, "lm_head") and hasattr(model, "final_logits_bias")
    padding = changed.pop("keeps_padding", None)
    options: dict[str, Any] = {
        "accumulation": 3,
        "weighting": "targets",
        "max_grad_norm": 1e-3,
        "parallel": "ddp",
        "grid": GRID,
        **changed,
    }
    loss = SequenceLoss(0.1, keeps_padding=padding) if is_text else ClassificationLoss(0.1)
    return GradientAccumulator(Accelerator(), model, loss, **options)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def descend(model: nn.Module) -> None:
    """Change the parameters by the clipped gradients."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 100.0 * parameter.grad


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name in theirs:
        scale = max(1e-3, float(theirs[name].abs().max()))
        assert (ours[name] - theirs[name]).abs().max() <= tolerance * scale, name


METHODS = [
    *(("bart", method) for method in ("mam", "full", "prompt", "mh_parallel", "bitfit")),
    *(("mbart", method) for method in ("mam", "houlsby", "prefix_lora_ffn")),
    *(("roberta", method) for method in ("mam", "full", "lora_attn", "prompt")),
]


@pytest.mark.usefixtures("repeated")
@pytest.mark.parametrize(("family", "method"), METHODS)
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
    repeated: type[RepeatRecorder],
) -> None:
    model = attach_method("mam", "bart")[0].train()
    ours = make_accumulator(model)
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
def test_a_step_that_cannot_be_recorded_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(*arguments: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(RepeatRecorder, "record", record)
    accumulator = make_accumulator(attach_method("mam", "bart")[0])
    accumulator._prepare(ComputePlan(graphs=True))
    with pytest.raises(UserError, match=r"capturing\); set compute.graphs=false$"):
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
    options = ComputeOptions(grid=ShapeGrid(0, 4, 6, source=6))

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


@pytest.mark.parametrize("method", ["mam", "lora_ffn", "bitfit", "adapter_attn"])
def test_casting_frozen_weights_once_gives_the_bits_of_autocast(method: str) -> None:
    plain = attach_method(method, "bart")[0].eval()
    batch = micro_batches("bart", 1)[0].batch
    results = []
    for replacements in ({}, cast_frozen_linears(plain, torch.bfloat16)):
        plain.zero_grad()
        with replaced_forwards(replacements), torch.autocast("cpu", torch.bfloat16):
            loss, _ = SequenceLoss(0.1)(plain, batch)
        loss.backward()
        results.append((loss.detach(), gradients(plain)))
    assert len(cast_frozen_linears(plain, torch.bfloat16)) > 10
    assert torch.equal(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        assert torch.equal(gradient, results[1][1][name]), name


@needs_onednn
@pytest.mark.parametrize("method", ["mam", "lora_ffn", "bitfit", "full"])
def test_onednn_gives_the_gradients_of_torch(method: str) -> None:
    model = attach_method(method, "bart")[0].eval()
    batch = micro_batches("bart", 1)[0].batch
    results = []
    for replacements in ({}, onednn_linears(model)):
        model.zero_grad()
        with replaced_forwards(replacements):
            loss, _ = SequenceLoss(0.1)(model, batch)
        loss.backward()
        results.append(gradients(model) | {"loss": loss.detach()})
    assert_close(results[1], results[0], 1e-4)
    assert not any("forward" in module.__dict__ for module in model.modules())


@needs_onednn
def test_onednn_leaves_float64_alone() -> None:
    model = attach_method("mam", "bart")[0].double()
    assert not onednn_linears(model)


@pytest.mark.parametrize("method", [["mam"], ["prefix"], ["mh_parallel", "attn.mlp_width=16"]])
def test_prefixes_generated_once_get_the_gradients_of_every_micro_batch(
    method: list[str],
) -> None:
    model = attach_method(method[0], "bart", *method[1:])[0].double().eval()
    shared, alone = make_accumulator(model), make_accumulator(model)
    assert shared.memories is not None and len(shared.memories.forms) > 1
    alone.memories = None
    for seed in (1, 2):
        results = []
        for accumulator in (alone, shared):
            losses = accumulator.accumulate(micro_batches("bart", seed))
            results.append((losses, gradients(model)))
            accumulator.clear()
        assert results[1][0] == pytest.approx(results[0][0], rel=1e-9)
        assert_close(results[1][1], results[0][1], 1e-9)
        alone.accumulate(micro_batches("bart", seed))
        descend(model)  # the next prefixes differ
        alone.clear()


def test_prefixes_with_dropout_are_generated_for_every_micro_batch() -> None:
    model = attach_method("mam", "bart")[0]
    memories = SharedMemories(model, torch.no_grad)
    assert memories.forms
    for form in memories.forms:
        form.dropout.p = 0.1
    assert not SharedMemories(model, torch.no_grad).forms


def test_prefixes_are_restored_after_an_error() -> None:
    memories = SharedMemories(attach_method("mam", "bart")[0], torch.enable_grad)
    with pytest.raises(ZeroDivisionError), memories.shared():
        raise ZeroDivisionError
    assert not any("memory" in form.__dict__ for form in memories.forms)


# Dropout


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_fast_dropout_keeps_and_scales_like_torch(p: float) -> None:
    x = torch.ones(1000, 1001, requires_grad=True)
    torch.manual_seed(1)
    with fast_dropout():
        y = F.dropout(x, p)
    y.sum().backward()
    assert y.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)])
    assert torch.equal(x.grad, y)  # type: ignore[arg-type]
    assert float((y == 0).float().mean()) == pytest.approx(p, abs=4 * (p * (1 - p) / 1e6) ** 0.5)


def test_dropout_masks_follow_from_the_random_state_and_are_independent() -> None:
    torch.manual_seed(1)
    first, second = draw_mask(torch.Size([64, 999]), 0.5), draw_mask(torch.Size([64, 999]), 0.5)
    torch.manual_seed(1)
    assert torch.equal(draw_mask(torch.Size([64, 999]), 0.5), first)
    assert float((first == second).float().mean()) == pytest.approx(0.5, abs=0.01)
    rows = first.float() - 0.5
    assert float((rows[:, 1:] * rows[:, :-1]).mean().abs()) < 0.005


def test_dropout_is_plain_outside_training_and_outside_the_context() -> None:
    plain, x = F.dropout, torch.ones(3)
    with fast_dropout():
        assert F.dropout is not plain
        assert F.dropout(x, 0.5, training=False) is x
        assert nn.Dropout(0.0)(x) is x
    assert F.dropout is plain


# Deterministic kernels


def test_deterministic_kernels_suffice_for_a_step(tmp_path: Path) -> None:
    model = attach_method("mam", "bart")[0].train()
    trainer = make_trainer(
        tmp_path,
        model=model,
        loader=[batch.batch for batch in micro_batches("bart", 1)],
        loss_fn=SequenceLoss(0.1),
        folder=RunFolder(tmp_path),
        compute=ComputeOptions(deterministic=True),
        evaluate=None,
        accumulation=3,
        max_steps=1,
    )
    assert torch.are_deterministic_algorithms_enabled()
    trainer.fit()
    make_trainer(tmp_path / "next")
    assert not torch.are_deterministic_algorithms_enabled()
