"""On a GPU: generation with recorded decoder steps against the same search on a CPU."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from tiny_generation import draw, draw_sources, peaked_model

from unipeft_run import generate
from unipeft_run.evaluation.generation import StepGraphs, static_step
from unipeft_run.evaluation.generation.beam_search import RULES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def _small_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record several sizes and widths: few sources leave a batch, and its rows are halved."""
    monkeypatch.setattr(static_step, "ROWS", 2)
    monkeypatch.setattr(static_step, "COLUMNS", 8)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("bart", None),
        ("bart", "mam"),
        ("bart", "houlsby"),
        ("mbart", "prefix"),
        ("mbart", "prompt"),
    ],
)
def test_tokens_are_those_of_a_cpu(family: str, method: str | None, beams: int, rules: Any) -> None:
    """In float64; several searches in a row repeat what the first of them recorded."""
    plain = peaked_model(family, method, seed=3)
    _, decoding = draw(3, family, num_beams=beams, max_length=14)
    rng = random.Random(beams)
    batches = [draw_sources(rng) for _ in range(4)]
    expected = [generate(plain, **batch, decoding=decoding, rules=rules) for batch in batches]
    model = plain.cuda()
    with StepGraphs(model) as graphs:
        for batch, tokens in zip(batches, expected, strict=True):
            on_gpu = {name: tensor.cuda() for name, tensor in batch.items()}
            eager = generate(model, **on_gpu, decoding=decoding, rules=rules)
            recorded = generate(model, **on_gpu, decoding=decoding, rules=rules, graphs=graphs)
            assert torch.equal(eager.cpu(), tokens)
            assert torch.equal(recorded.cpu(), tokens)
        assert graphs.recorder is not None, "recording failed"


def test_a_failed_recording_leaves_a_usable_process(caplog: pytest.LogCaptureFixture) -> None:
    """A host read inside the step cannot be recorded; later random numbers can be drawn."""
    model = peaked_model("bart", seed=3).cuda()
    _, decoding = draw(3, "bart", num_beams=3, max_length=14, min_length=12)
    sources = {name: tensor.cuda() for name, tensor in draw_sources(random.Random(1)).items()}
    expected = generate(model, **sources, decoding=decoding)
    model.get_decoder().register_forward_hook(lambda *given: float(given[2][0].sum()) and None)
    with StepGraphs(model) as graphs:
        tokens = generate(model, **sources, decoding=decoding, graphs=graphs)
    assert torch.equal(tokens, expected)
    assert graphs.recorder is None
    assert "not recorded as CUDA graphs" in caplog.text
    assert torch.nn.functional.dropout(torch.ones(4, device="cuda")).is_cuda
