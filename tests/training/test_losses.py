"""Losses against the LabelSmoother of the paper's code and against the models' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_text
import torch
from attached_models import attach_method
from official_loss import label_smoother
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from unipeft_run.data.batching import Collator
from unipeft_run.training.losses import ClassificationLoss, SequenceLoss, cross_entropy

SMOOTHING = 0.1
WORDS = 96  # the vocabulary of tiny.backbone


def dense(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the loss computed from all logits at once."""
    inputs = {name: batch[name] for name in batch if name != "labels"}
    return cross_entropy(model(**inputs, use_cache=False).logits, batch["labels"], SMOOTHING)


def translations() -> dict[str, Tensor]:
    """Return five examples with padding on both sides, 19 targets."""
    generator = torch.Generator().manual_seed(5)

    def ids(length: int) -> list[int]:
        return torch.randint(5, 90, (length,), generator=generator).tolist()

    rows = [{"input_ids": ids(3 + i), "labels": ids(n)} for i, n in enumerate((7, 1, 4, 5, 2))]
    return Collator(pad_token_id=1, decoder_start=2)(rows)


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def prepared(method: str, family: str) -> Any:
    """Return a model in float64 with a bias on the logits."""
    model = attach_method(method, family)[0].double()
    generator = torch.Generator().manual_seed(2)
    model.final_logits_bias.normal_(generator=generator)
    return model


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_smoothing_equals_the_label_smoother(smoothing: float) -> None:
    torch.manual_seed(1)
    logits = torch.randn(3, 5, 17, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 17, (3, 5))
    labels[0, 3:], labels[2, 1:] = -100, -100
    ours, theirs = (f(logits, labels, smoothing) for f in (cross_entropy, label_smoother))
    assert abs(ours.item() - theirs.item()) < 1e-6  # the label smoother sums in float32
    (ours_gradient,) = torch.autograd.grad(ours, logits)
    (gradient,) = torch.autograd.grad(theirs, logits)
    assert torch.allclose(ours_gradient, gradient, atol=1e-8)
    assert ours_gradient[0, 3:].abs().max() == 0


def test_half_precision_logits_are_summed_in_float32() -> None:
    torch.manual_seed(1)
    logits = torch.randn(4, 3000).bfloat16()
    labels = torch.randint(0, 3000, (4,))
    loss = cross_entropy(logits, labels, 0.1)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, cross_entropy(logits.float(), labels, 0.1))


def test_the_unsmoothed_sequence_loss_equals_the_models_own() -> None:
    rows = [
        {"input_ids": [5, 6, 2], "labels": [7, 8, 9, 2]},
        {"input_ids": [6, 2], "labels": [7, 2]},
    ]
    batch = Collator(pad_token_id=1, decoder_start=2)(rows)
    model = tiny_text.bart(30)
    loss, count = SequenceLoss(0.0)(model, batch)
    own = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]
    ).loss
    assert count == 6
    assert torch.allclose(loss, own, atol=1e-6)
    smoothed, _ = SequenceLoss(0.1)(model, batch)
    assert not torch.allclose(smoothed, own, atol=1e-3)


# In chunks


@pytest.mark.parametrize("keeps_padding", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 1000])
@pytest.mark.parametrize(
    ("method", "family"),
    [("mam", "bart"), ("full", "bart"), ("prompt", "mbart"), ("full", "mbart"), ("bitfit", "bart")],
)
def test_chunks_give_the_gradients_of_all_logits(
    method: str, family: str, rows: int, keeps_padding: bool
) -> None:
    model, batch = prepared(method, family), translations()
    expected = dense(model, batch)
    loss_fn = SequenceLoss(SMOOTHING, chunk=rows * WORDS, keeps_padding=keeps_padding)
    loss, count = loss_fn(model, batch)
    assert count == 19
    assert abs(loss.item() - expected.item()) <= 1e-12
    theirs, ours = gradients(model, expected), gradients(model, 1.0 * loss)
    assert ours.keys() == theirs.keys()
    assert ("model.shared.weight" in ours) == (method == "full")  # the head is tied to it
    for name in ours:
        assert (ours[name] - theirs[name]).abs().max() <= 1e-12, name
    assert max(gradient.abs().max() for gradient in ours.values()) > 1e-4


def test_checkpointed_layers_give_the_same_gradients() -> None:
    model, batch = prepared("mam", "bart"), translations()
    expected = gradients(model, dense(model, batch))
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    ours = gradients(model, SequenceLoss(SMOOTHING)(model, batch)[0])
    for name in expected:
        assert (ours[name] - expected[name]).abs().max() <= 1e-12, name


class Sizes(TorchDispatchMode):
    """Records the number of rows of every tensor of logits."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.rows = weight.untyped_storage().data_ptr(), list[int]()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dim() > 1 and result.size(-1) == WORDS:
            transposed = result.untyped_storage().data_ptr() == self.weight
            self.rows += [] if transposed else [result.numel() // WORDS]
        return result


def test_the_logits_of_a_batch_are_never_built() -> None:
    model, batch = prepared("mam", "bart"), translations()
    with Sizes(model.lm_head.weight) as all_logits:
        dense(model, batch)
    with Sizes(model.lm_head.weight) as chunks:
        loss, _ = SequenceLoss(SMOOTHING, chunk=4 * WORDS)(model, batch)
        loss.backward()
    assert max(all_logits.rows) == 5 * 8  # padded to a multiple of 8
    assert max(chunks.rows) == 4
    assert model.lm_head.weight.grad is None


def test_without_gradients_only_the_value_is_computed() -> None:
    model, batch = prepared("mam", "bart"), translations()
    expected = dense(model, batch).item()
    with torch.inference_mode():
        loss, _ = SequenceLoss(SMOOTHING)(model, batch)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    assert not loss.requires_grad


def test_the_model_is_unchanged_afterwards() -> None:
    model, batch = prepared("mam", "bart"), translations()
    logits = model(**batch).logits
    SequenceLoss(SMOOTHING)(model, batch)
    with pytest.raises(ValueError, match="Please pass"):
        SequenceLoss(SMOOTHING)(model, {"labels": batch["labels"]})
    assert torch.equal(model(**batch).logits, logits)


@pytest.mark.parametrize("method", ["mam", "full"])
def test_under_autocast_the_head_multiplies_in_half_precision(method: str) -> None:
    model, batch = attach_method(method, "bart")[0], translations()
    with torch.autocast("cpu", torch.bfloat16):
        expected = dense(model, batch)
        loss, _ = SequenceLoss(SMOOTHING, chunk=5 * WORDS)(model, batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    theirs, ours = gradients(model, expected), gradients(model, loss)
    for name in theirs:
        scale = theirs[name].abs().max()
        assert (ours[name] - theirs[name]).abs().max() <= 0.03 * scale + 1e-6, name
        assert ours[name].dtype == torch.float32


@pytest.fixture
def _one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("unused", [False, True])
def test_a_model_in_ddp(unused: bool) -> None:
    model, batch = prepared("mam", "bart"), translations()
    expected = gradients(model, dense(model, batch))
    wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=unused)
    ours = gradients(model, SequenceLoss(SMOOTHING)(wrapped, batch)[0])
    assert expected.keys() == ours.keys()
    for name in ours:
        assert (ours[name] - expected[name]).abs().max() <= 1e-12, name


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("reshard", [False, True])
def test_a_model_sharded_by_fsdp(reshard: bool) -> None:
    from torch.distributed.fsdp import fully_shard

    model, batch = prepared("full", "mbart"), translations()
    expected = gradients(model, dense(model, batch))
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    for layer in (*model.model.encoder.layers, *model.model.decoder.layers):
        fully_shard(layer, mesh=mesh, reshard_after_forward=reshard)
    fully_shard(model, mesh=mesh, reshard_after_forward=reshard)
    loss, _ = SequenceLoss(SMOOTHING)(model, batch)
    loss.backward()
    for name, parameter in model.named_parameters():
        ours = parameter.grad.full_tensor()  # type: ignore[union-attr]
        assert (ours - expected[name]).abs().max() <= 1e-12, name


def test_the_classification_loss_is_per_example() -> None:
    rows = [{"input_ids": [5, 6, 2], "labels": 2}, {"input_ids": [6, 2], "labels": 0}]
    model = tiny_text.roberta(30, num_labels=3)
    batch = Collator(pad_token_id=1)(rows)
    loss, count = ClassificationLoss()(model, batch)
    assert count == 2
    assert torch.allclose(loss, model(**batch).loss, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_smoothed_classification_loss_equals_the_label_smoother(smoothing: float) -> None:
    rows = [{"input_ids": [5, 6, n], "labels": n % 3} for n in range(2, 7)]
    model = tiny_text.roberta(30, num_labels=3).double()
    batch = Collator(pad_token_id=1)(rows)
    logits = model(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits
    expected = label_smoother(logits, batch["labels"], smoothing, torch.float64)
    loss, count = ClassificationLoss(smoothing)(model, batch)
    assert count == 5
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    theirs, ours = gradients(model, expected), gradients(model, loss)
    for name in theirs:
        assert torch.allclose(ours[name], theirs[name], atol=1e-12), name
