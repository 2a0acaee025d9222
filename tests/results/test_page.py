"""docs/results.md and its parts against the stored runs."""

from __future__ import annotations

import re
from pathlib import Path

import grid
import page
import pytest
from archive import read_records
from claims import CLAIMS
from estimates import judge

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs" / "results"
RUNS = page.group_by_cell(read_records(DATA / "runs.parquet"))


@pytest.fixture(scope="module")
def written() -> str:
    return (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_stored_runs_give(written: str) -> None:
    assert page.render(DATA) == written


def test_every_cell_has_its_runs_or_is_named_missing(written: str) -> None:
    missing = written.partition("## Missing runs")[2]
    for cell in grid.list_cells():
        seeds = {record.seed for record in RUNS.get(cell.name, [])}
        assert (seeds == set(grid.SEEDS)) != (f"`{cell.name}`" in missing), cell


def test_runs_of_a_task_have_the_same_test_examples() -> None:
    examples = {}
    for records in RUNS.values():
        for record in records:
            examples.setdefault(record.scores["task"], set()).add(record.examples)
    assert all(len(digests) == 1 for digests in examples.values())


def test_stored_examples_give_the_stored_scores() -> None:
    for record in (record for records in RUNS.values() for record in records):
        scores = record.scores
        assert record.sample.total == pytest.approx(scores[scores["primary"]], abs=1e-3)


def test_the_readme_repeats_differences_of_the_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"[+-]\d+\.\d\d(?= points)", text)
    findings = judge(CLAIMS, RUNS)
    known = {f"{f.estimate.difference:+.2f}" for found in findings for f in found if f.estimate}
    assert len(shown) >= 3
    assert set(shown) <= known


def test_the_report_of_all_runs_is_small() -> None:
    file = ROOT / "docs" / "results.html"
    assert file.stat().st_size < 2_000_000
