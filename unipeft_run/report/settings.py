"""Describe what distinguishes runs of the same task and method, as overrides."""

from __future__ import annotations

from collections.abc import Sequence

from unipeft_run.report.differences import as_mapping, find_differences
from unipeft_run.runs.printable import printable
from unipeft_run.runs.reader import RunRecord

LISTED_ELSEWHERE = ("seed", "task.name")
LONGEST = 500  # characters of a text
DAMAGE = (KeyError, TypeError, AttributeError, ValueError)  # raised for damaged configurations


def describe_settings(runs: Sequence[RunRecord]) -> list[str]:
    """Return for each run the overrides that other runs of its task and method do not share.

    Texts of runs with a damaged configuration are empty.
    """
    texts = [""] * len(runs)
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, run in enumerate(runs):
        groups.setdefault(_name(run), []).append(number)
    scales: dict[tuple[str, ...], set[str]] = {}
    for *name, scale in groups:
        scales.setdefault(tuple(name), set()).add(scale)
    for (*name, scale), numbers in groups.items():
        shown = [f"scale={printable(scale, 20)}"] * (len(scales[tuple(name)]) > 1)
        found = _find_differences([runs[number] for number in numbers])
        for number, text in zip(numbers, found, strict=True):
            texts[number] = printable(" ".join(filter(None, (*shown, text))), LONGEST)
    return texts


def _name(run: RunRecord) -> tuple[str, ...]:
    task = as_mapping(run.config.get("task")).get("name")
    return str(task), str(run.config.get("method")), str(run.config.get("scale"))


def _find_differences(runs: Sequence[RunRecord]) -> list[str]:
    if len(runs) < 2:
        return [""] * len(runs)
    try:
        return find_differences([run.settings for run in runs], LISTED_ELSEWHERE)
    except DAMAGE:
        whole = [number for number, run in enumerate(runs) if _is_whole(run)]
        found = _find_differences([runs[number] for number in whole])
        texts = dict(zip(whole, found, strict=True))
        return [texts.get(number, "") for number in range(len(runs))]


def _is_whole(run: RunRecord) -> bool:
    try:
        find_differences([run.settings])
    except DAMAGE:
        return False
    return True
