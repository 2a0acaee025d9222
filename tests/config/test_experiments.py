"""The published tables in conf/experiment/: printed results, configurations and sizes."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from sampling import sampled
from tiny_config import configured

from unipeft_run.config import RunConfig, run_id
from unipeft_run.config.experiments import (
    LEADERBOARD,
    Cell,
    Experiment,
    names,
    read,
    read_tables,
)
from unipeft_run.config.messages import options
from unipeft_run.deltas.attach import attach, detach
from unipeft_run.deltas.counting.paper_shares import name_parts
from unipeft_run.deltas.delta_file import inference_tensors
from unipeft_run.deltas.slots import build_slots

# results printed in the paper's tables and in its authors' plot script, row by row
FIGURES = json.loads((Path(__file__).parents[1] / "support" / "paper_figures.json").read_text())
UNPUBLISHED = (LEADERBOARD, "results_")  # the latter: scripts/results
BACKBONES = {"bart": 406_291_456, "mbart": 610_851_840, "roberta": 124_647_939}
COUNTS = {  # appendix B's formula: weight matrices, no biases, no prefix MLP
    ("prefix", 1): 73_728,
    ("prefix", 30): 2_211_840,
    ("prefix", 200): 14_745_600,
    ("prefix", 512): 37_748_736,
    ("mh_parallel", 30): 2_211_840,
    ("mh_parallel", 200): 14_745_600,
    ("adapter_attn", 200): 14_745_600,
    ("adapter_attn", 512): 37_748_736,
    ("parallel_attn", 30): 2_211_840,
    ("parallel_attn", 200): 14_745_600,
    ("parallel_attn", 512): 37_748_736,
    ("adapter_ffn", 30): 1_474_560,
    ("adapter_ffn", 200): 9_830_400,
    ("adapter_ffn", 512): 25_165_824,
    ("adapter_ffn", 1024): 50_331_648,
    ("parallel_ffn", 30): 1_474_560,
    ("parallel_ffn", 200): 9_830_400,
    ("parallel_ffn", 512): 25_165_824,
    ("parallel_ffn", 1024): 50_331_648,
    ("scaled_parallel_ffn", 512): 25_165_824,
    ("pfeiffer", 600): 29_491_200,
    ("lora_attn", 1): 147_456,
    ("lora_attn", 30): 4_423_680,
    ("lora_attn", 200): 29_491_200,
    ("lora_attn", 400): 58_982_400,
    ("lora_ffn", 102): 25_067_520,
    ("parallel_attn_ffn", 30, 512): 27_377_664,
    ("prefix_lora_ffn", 30, 102): 27_279_360,
    ("mam", 30, 512): 27_377_664,
    ("mam", 16, 16): 589_824,
    ("houlsby", 16, 16): 589_824,
    ("prefix", 32): 589_824,
    ("lora_attn", 16): 589_824,
    ("prompt", 200): 204_800,
    ("prompt", 300): 307_200,
}
MISPRINTED = {  # (experiment, row, printed share) that contradicts the paper's own formula
    ("table4", "Prefix, l=30", 0.1),
    ("table4", "-gating, l=30", 0.1),
    ("table4", "PA (ffn), r=30", 0.1),
    ("table4", "PA (attn), r=30", 0.1),
    ("table4", "MH PA (attn), r=30", 0.1),
    ("table6", "LoRA (ffn), r=102", 7.2),
}


def experiment(name: str) -> Experiment:
    found = read(name)
    assert found is not None
    return found


def config(cell: Cell, scale: str = "paper") -> RunConfig:
    return configured(*cell.overrides[scale], f"scale={scale}")


CELLS = [(name, cell) for name in FIGURES for cell in experiment(name).cells]
IDS = [f"{name} {cell.row} {cell.task}" for name, cell in CELLS]


def test_every_published_table_and_figure_has_an_experiment() -> None:
    parts = {f"{name}_{task}" for name in FIGURES for task in experiment(name).metrics}
    ours = {name for name in names() if not name.startswith(UNPUBLISHED)}
    assert ours == {*FIGURES, *parts}
    assert ours & set(options("experiment")) == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_every_printed_result_equals_the_paper(name: str) -> None:
    rows: dict[str, dict[str, Cell]] = {}
    for cell in experiment(name).cells:
        rows.setdefault(cell.row, {})[cell.task or ""] = cell
    assert len(rows) == len(FIGURES[name])
    for printed, cells in zip(FIGURES[name], rows.values(), strict=True):
        assert set(printed) == {"row", "share", *cells}
        for task, cell in cells.items():
            assert cell.share == printed["share"], cell.row
            assert list(cell.printed) == printed[task]["printed"], cell.row
            assert list(cell.std) == printed[task].get("std", []), cell.row
            assert len(cell.printed) == len(experiment(name).metrics[task])


PARTS = [name for name in names() if name not in FIGURES and not name.startswith(UNPUBLISHED)]


@pytest.mark.parametrize("name", PARTS)
def test_a_task_suffix_selects_the_cells_of_one_task(name: str) -> None:
    whole, _, task = name.partition("_")
    assert experiment(name).cells == tuple(c for c in experiment(whole).cells if c.task == task)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cell"), CELLS, ids=IDS)
def test_every_cell_composes_in_miniature(name: str, cell: Cell) -> None:
    composed = config(cell, "mini")
    assert (composed.task.name, composed.scale) == (cell.task, "mini")


@pytest.mark.parametrize(("name", "cell"), sampled(CELLS, 4), ids=IDS)
def test_a_cell_composes_to_what_its_row_says(name: str, cell: Cell) -> None:
    """The task, the sizes in the row's name, the parts, and the stored parameters."""
    composed = config(cell)
    assert (composed.task.name, composed.scale) == (cell.task, "paper")
    check_sizes(cell, composed)
    if name.startswith("table"):
        assert cell.parts == name_parts(composed)
    else:
        assert not cell.parts, "unipeft-params reads tables only"
    check_share(name, cell, composed)


def check_sizes(cell: Cell, composed: RunConfig) -> None:
    """Sizes that are the method's default for its task are not repeated in the cells."""
    slots = composed.slots().values()
    said = [int(number) for number in re.findall(r"[lr]=(\d+)", cell.row)]
    assert said in ([], [slot.bottleneck for slot in slots])
    if found := re.search(r"s=(\d)", cell.row):
        assert [slot.scale for slot in slots] == [int(found[1])]


def test_the_tables_are_read_in_the_order_of_the_paper() -> None:
    labels = [table.label for table in read_tables()]
    assert labels == ["Table 2", "Table 3", "Table 4", "Table 5", "Table 6", "Table 12"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_distinct_rows_stay_distinct_in_miniature(name: str) -> None:
    cells = experiment(name).cells
    for task in experiment(name).metrics:
        of_task = [cell for cell in cells if cell.task == task]
        ids = {scale: [run_id(config(c, scale)) for c in of_task] for scale in ("paper", "mini")}
        first = {scale: [found.index(one) for one in found] for scale, found in ids.items()}
        assert first["paper"] == first["mini"]


# ---- sizes


@cache
def backbone(family: str) -> Any:
    """Build one of the paper's backbones in full size, without weights."""
    large = {"d_model": 1024, "encoder_layers": 12, "decoder_layers": 12}
    with torch.device("meta"):
        if family == "roberta":
            return transformers.RobertaForSequenceClassification(transformers.RobertaConfig())
        seq2seq = {"bart": transformers.BartConfig, "mbart": transformers.MBartConfig}[family]
        model = {
            "bart": transformers.BartForConditionalGeneration,
            "mbart": transformers.MBartForConditionalGeneration,
        }[family]
        return model(seq2seq(**large))


@cache
def matrices(*overrides: str) -> int:
    """Count the parameters in the stored weight matrices of a cell, as Appendix B does."""
    composed = configured(*overrides)
    model = backbone(composed.backbone.family)
    with torch.device("meta"):
        attach(model, build_slots(composed), composed.unfreeze)
    try:
        return sum(tensor.numel() for _, tensor in inference_tensors(model) if tensor.dim() > 1)
    finally:
        detach(model)


def check_share(name: str, cell: Cell, composed: RunConfig) -> None:
    """The stored parameters are those of the formula, and their share the printed one."""
    sizes = [slot.bottleneck for slot in composed.slots().values()]
    if composed.method == "full":
        count, share = BACKBONES["bart"], 100.0
    elif composed.method == "bitfit":
        assert cell.share in (0.1, 0.08)
        return
    else:
        count = COUNTS[(composed.method, *sizes)]  # type: ignore[index]
        assert matrices(*cell.overrides["paper"], "scale=paper") == count
        family = "roberta" if composed.backbone.family == "roberta" else "bart"
        share = 100 * count / BACKBONES[family]  # the paper divides by BART-large for mBART too
    assert cell.share is not None
    fits = abs(share - cell.share) <= 0.03 * cell.share + 0.05
    assert fits != ((name, cell.row, cell.share) in MISPRINTED)


def test_contradictions_in_the_paper_are_noted() -> None:
    def notes(name: str) -> str:
        found = experiment(name)
        return " ".join([*found.notes, *(note for cell in found.cells for note in cell.notes)])

    assert "1.7" in notes("table3")
    assert "0.68" in notes("table3")
    assert "0.54 %" in notes("table4")
    assert "1.5 over PA (attn)" in notes("table4")
    assert "R-LSum" in notes("table5")
    assert "7.2 % is r=120" in notes("table6")
    assert "21.24 and 37.3" in notes("table6")
    assert "20.4, 20.58, 20.98" in notes("table12")
    assert "19.98, 20.75, 21.00" in notes("figure4")
    for name in ("table3", "table4", "table6", "table12", "figure4", "figure5"):
        assert "two thirds" in notes(name).replace("two\n", "two "), name
    for name in ("table2", "table12"):
        assert "queries and values" in notes(name)
