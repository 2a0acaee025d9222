"""The paper's claims, each as pairs of cells whose scores it orders.

The pairs, the signs and the margin of "close" were written down before the runs of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from grid import EXTRA, NO_MLP, PRIMARY, ZERO_INIT, Cell, cell_of, extra_cell

from unipeft_run.config.experiments import Cell as PublishedCell
from unipeft_run.config.experiments import Experiment, read

MARGIN = 1.0  # points; the paper's MAM is at most 0.4 away from full fine-tuning
BOTH = ("xsum", "wmt16_en_ro")
MAM = "MAM Adapter, l=30, r=512"


@dataclass(frozen=True)
class Pair:
    """Two rows of a table or figure, the one that the paper ranks higher first, on one task."""

    table: str
    first: str
    second: str
    task: str

    @property
    def cells(self) -> tuple[Cell, Cell]:
        """The cells of both rows."""
        return _find(self.table, self.first, self.task), _find(self.table, self.second, self.task)

    @property
    def printed(self) -> float | None:
        """The paper's difference; None if it prints none."""
        if self.second in EXTRA or self.first in EXTRA:
            return None
        scores = [_find_printed(self.table, row, self.task) for row in (self.first, self.second)]
        return scores[0] - scores[1]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper. `close`: it says that a pair's scores are equal, not ordered."""

    title: str
    source: str
    pairs: tuple[Pair, ...]
    close: bool = False


def _pairs(table: str, first: str, second: str, tasks: Sequence[str] = BOTH) -> list[Pair]:
    return [Pair(table, first, second, task) for task in tasks]


CLAIMS = (
    Claim(
        "Parallel insertion is better than sequential insertion",
        "section 4.3, table 3",
        (
            *_pairs("table3", "PA (attn), r=200", "SA (attn), r=200"),
            *_pairs("table3", "PA (ffn), r=200", "SA (ffn), r=200"),
        ),
    ),
    Claim(
        "At larger budgets, modifying the FFN is better than modifying attention",
        "section 4.4, figure 5",
        (
            *_pairs("figure5", "PA (ffn), r=200", "PA (attn), r=200"),
            *_pairs("figure5", "PA (ffn), r=512", "PA (attn), r=512"),
            *_pairs("figure5", "LoRA (ffn), r=102", "LoRA (attn), r=200"),
        ),
    ),
    Claim(
        "At the smallest budget, modifying the attention heads is best",
        "section 4.4, table 4",
        (
            *_pairs("table4", "MH PA (attn), r=30", "PA (attn), r=30", ["wmt16_en_ro"]),
            *_pairs("table4", "Prefix, l=30", "PA (attn), r=30", ["wmt16_en_ro"]),
            *_pairs("table4", "MH PA (attn), r=30", "PA (ffn), r=30", ["wmt16_en_ro"]),
            *_pairs("table4", "Prefix, l=30", "PA (ffn), r=30", ["wmt16_en_ro"]),
        ),
    ),
    Claim(
        "Scaling the change by s=4 is better than no scale and than a learned one",
        "section 4.5, table 5",
        (
            *_pairs("table5", "Scaled PA, r=512, s=4", "PA, r=512", ["xsum"]),
            *_pairs("table5", "Scaled PA, r=512, s=4", "Scaled PA, r=512, trainable s", ["xsum"]),
            *_pairs("table5", "LoRA, r=102, s=4", "LoRA, r=102, s=1", ["xsum"]),
            *_pairs("table5", "Scaled PA, r=512, s=4", ZERO_INIT, ["xsum"]),
        ),
    ),
    Claim(
        "A parallel adapter is better if it starts from zero, as LoRA does",
        "appendix A initialises the scaled adapter so, and prints no comparison",
        tuple(_pairs("figure5", ZERO_INIT, "PA (ffn), r=512")),
    ),
    Claim(
        "Prefix tuning is better if an MLP generates the prefix",
        "appendix A uses an MLP, and prints no comparison",
        tuple(_pairs("table3", "Prefix, l=200", NO_MLP)),
    ),
    Claim(
        "MAM is close to full fine-tuning",
        "abstract and section 4.6, tables 2 and 6",
        (
            *_pairs("table6", MAM, "Full fine-tuning (the authors' run)"),
            *_pairs("table2", "MAM Adapter", "Full-FT", ["mnli", "sst2"]),
        ),
        close=True,
    ),
    Claim(
        "MAM is better than the other parameter-efficient methods",
        "section 4.6, table 6",
        (
            *_pairs("table6", MAM, "LoRA (ffn), r=102"),
            *_pairs("table6", MAM, "PA (ffn), r=1024"),
            *_pairs("table6", MAM, "Prefix (attn, l=30) + LoRA (ffn, r=102)"),
        ),
    ),
)


def list_claimed() -> list[Cell]:
    """List the cells of all claims."""
    cells = [cell for claim in CLAIMS for pair in claim.pairs for cell in pair.cells]
    return list(dict.fromkeys(cells))


def _find(table: str, row: str, task: str) -> Cell:
    return extra_cell(row, task) if row in EXTRA else cell_of(_find_row(table, row, task))


def _find_row(table: str, row: str, task: str) -> PublishedCell:
    found = [cell for cell in _read(table).cells if (cell.row, cell.task) == (row, task)]
    assert len(found) == 1, f"{table} has no row {row} on {task}"
    return found[0]


@cache
def _read(table: str) -> Experiment:
    experiment = read(table)
    assert experiment
    return experiment


def _find_printed(table: str, row: str, task: str) -> float:
    place = list(_read(table).metrics[task]).index(PRIMARY[task])
    return float(_find_row(table, row, task).printed[place])
