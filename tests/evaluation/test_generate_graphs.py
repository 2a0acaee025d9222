"""Decoder steps with static shapes, recorded and repeated as a GPU would."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from attached_models import METHODS
from tape import TapeRecorder
from tiny_evaluators import summariser
from tiny_generation import draw, draw_sources, peaked_model, tiny_case

from unipeft_run import generate
from unipeft_run.evaluation.generation import StepGraphs, static_step
from unipeft_run.evaluation.generation.beam_search import RULES
from unipeft_run.task_types import seq2seq

LONGEST = 14
FAST = [("bart", "mam"), ("mbart", "prefix")]


@pytest.fixture
def small_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few sources leave the batch."""
    monkeypatch.setattr(static_step, "ROWS", 2)
    monkeypatch.setattr(static_step, "COLUMNS", 8)


@pytest.mark.usefixtures("small_rows")
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    ("family", "method"),
    [
        *FAST,
        *(
            pytest.param(family, method, marks=pytest.mark.slow)
            for family in ("bart", "mbart")
            for method in (None, *METHODS)
            if method != "unipelt" and (family, method) not in FAST
        ),
    ],
)
def test_recorded_steps_give_the_same_tokens(
    family: str, method: str | None, beams: int, rules: Any
) -> None:
    """Several searches in a row repeat the steps that the first of them recorded."""
    model = peaked_model(family, method, seed=3)
    _, decoding = draw(3, family, num_beams=beams, max_length=LONGEST)
    rng = random.Random(beams)
    with StepGraphs(model, TapeRecorder()) as graphs:
        for _ in range(3):
            sources = draw_sources(rng)
            expected = generate(model, **sources, decoding=decoding, rules=rules)
            found = generate(model, **sources, decoding=decoding, rules=rules, graphs=graphs)
            assert torch.equal(found, expected)
        assert graphs.recorder is not None


@pytest.mark.usefixtures("small_rows")
def test_searches_of_one_width_share_their_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TapeRecorder, "recordings", 0)
    model, sources, decoding = tiny_case(max_length=LONGEST)
    with StepGraphs(model, TapeRecorder()) as graphs:
        generate(model, **sources, decoding=decoding, graphs=graphs)
        first = TapeRecorder.recordings
        generate(model, **sources, decoding=decoding, graphs=graphs)
        assert TapeRecorder.recordings == first >= 1
        generate(model, **sources, decoding={**decoding, "max_length": 5}, graphs=graphs)
        assert TapeRecorder.recordings > first


def test_graphs_are_a_context_of_one_model() -> None:
    """Outside it, recorded steps would read the memories of a search that has ended."""
    model, sources, decoding = tiny_case(max_length=LONGEST)
    with pytest.raises(ValueError, match="graphs are a context"):
        generate(model, **sources, decoding=decoding, graphs=StepGraphs(model, TapeRecorder()))
    refused = pytest.raises(ValueError, match="graphs: these belong to another model")
    with StepGraphs(peaked_model("bart")) as graphs, refused:
        generate(model, **sources, decoding=decoding, graphs=graphs)


def test_steps_that_cannot_be_recorded_run_as_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def record(*arguments: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(TapeRecorder, "record", record)
    model, sources, decoding = tiny_case(max_length=LONGEST)
    expected = generate(model, **sources, decoding=decoding)
    with StepGraphs(model, TapeRecorder()) as graphs:
        assert torch.equal(generate(model, **sources, decoding=decoding, graphs=graphs), expected)
        assert torch.equal(generate(model, **sources, decoding=decoding, graphs=graphs), expected)
    assert caplog.messages == [
        "Decoder steps are not recorded as CUDA graphs: operation not permitted when stream is "
        "capturing."
    ]


@pytest.mark.parametrize("graphs", [None, False])
def test_an_evaluation_records_its_decoder_steps(
    graphs: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, model = summariser(tmp_path, graphs=graphs)
    plain = evaluator(model, "test")
    monkeypatch.setattr(TapeRecorder, "recordings", 0)
    monkeypatch.setattr(seq2seq, "can_record", lambda model: True)
    monkeypatch.setattr(seq2seq, "StepGraphs", partial(StepGraphs, recorder=TapeRecorder()))
    recorded = evaluator(model, "test")
    assert recorded.rows == plain.rows
    assert (TapeRecorder.recordings > 0) == (graphs is not False)
    assert evaluator.step.steps is None
