"""Every method x backbone x attention implementation x cache x gradient checkpointing.

On tiny models: in every cell, greedy generation and teacher forcing give the same ids, gradients do
not depend on checkpointing, and both attention implementations give the same logits.
"""

import itertools
from typing import Any

import pytest
import torch
import torch.distributed as dist
from attached_models import METHODS, TASKS, perturbed_model
from sampling import sampled
from tiny import batch
from torch.nn.parallel import DistributedDataParallel

CORES, SWITCH = ("sdpa", "eager"), (False, True)
ROWS = list(itertools.product(TASKS, METHODS))


def cells(family: str) -> list[tuple[str, bool, bool | None]]:
    """List the combinations of (core, checkpointing, cache); a classifier has no cache."""
    return list(itertools.product(CORES, SWITCH, (None,) if family == "roberta" else SWITCH))


def gradients(model: Any, inner: Any = None) -> list[torch.Tensor]:
    """Compute the gradients of a seeded training step, with dropout."""
    model.train()
    torch.manual_seed(5)
    model(**batch((inner or model).config.model_type)).loss.backward()
    model.eval()
    return [p.grad for p in model.parameters() if p.requires_grad]


def generated(model: Any, cache: bool) -> torch.Tensor:
    inputs = batch(model.config.model_type)
    for name in ("eos_token_id", "forced_eos_token_id", "forced_bos_token_id"):
        setattr(model.generation_config, name, None)
    return model.generate(
        inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=7,
        do_sample=False,
        num_beams=1,
        use_cache=cache,
    )


def teacher_forced(model: Any, ids: torch.Tensor) -> torch.Tensor:
    inputs = {**batch(model.config.model_type), "decoder_input_ids": ids[:, :-1]}
    del inputs["labels"]
    with torch.no_grad():
        return model(**inputs).logits.argmax(-1)


@pytest.mark.parametrize(("family", "method"), sampled(ROWS, 5))
def test_every_cell_agrees(family: str, method: str) -> None:
    logits, ids, run = [], [], []
    for core in CORES:
        plain: list[torch.Tensor] = []
        for checkpointing in SWITCH:
            model = perturbed_model(family, method, core)
            if checkpointing:
                model.activation_checkpointing_enable({"use_reentrant": False})
            found = gradients(model)
            plain = plain or found
            for gradient, expected in zip(found, plain, strict=True):
                torch.testing.assert_close(gradient, expected)
            with torch.no_grad():
                logits.append(model(**batch(family)).logits)
            for cache in (None,) if family == "roberta" else SWITCH:
                run.append((core, checkpointing, cache))
                if cache is not None:
                    ids.append(generated(model, cache))
    assert run == cells(family)
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], rtol=1e-4, atol=1e-5)
    for other in ids[1:]:
        assert torch.equal(other, ids[0])
    if ids:
        assert torch.equal(teacher_forced(model, ids[0]), ids[0][:, 1:])


@pytest.mark.parametrize(("family", "method"), [("bart", "mam"), ("roberta", "houlsby")])
def test_data_parallel_training_has_the_same_gradients(family: str, method: str) -> None:
    expected = gradients(perturbed_model(family, method))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        inner = perturbed_model(family, method)
        found = gradients(DistributedDataParallel(inner), inner)
    finally:
        dist.destroy_process_group()
    for actual, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, reference)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler itself
@pytest.mark.parametrize(("family", "method"), [("bart", "mam"), ("roberta", "houlsby")])
def test_a_compiled_model_has_the_same_loss_and_gradients(family: str, method: str) -> None:
    plain, inner = perturbed_model(family, method), perturbed_model(family, method)
    compiled = torch.compile(inner, backend="aot_eager")
    losses = [model(**batch(family)).loss for model in (plain, compiled)]
    torch.testing.assert_close(losses[1], losses[0])
    for loss in losses:
        loss.backward()
    for actual, reference in zip(inner.parameters(), plain.parameters(), strict=True):
        if reference.requires_grad:
            torch.testing.assert_close(actual.grad, reference.grad)
