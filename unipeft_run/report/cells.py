"""Group finished runs by the examples they were scored on, then by configuration; rank them.

A group holds the runs that were scored on the same examples; a cell holds the runs of one
configuration, all seeds together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from unipeft_run.evaluation.metrics.by_name import is_lower_better
from unipeft_run.report.differences import as_mapping, find_differences
from unipeft_run.runs.reader import RunRecord, is_number

Key = tuple[str, str, str, str]  # task, scale, backbone, data
# keys of the task that decide which examples are scored, and against what
SCORING = (
    *("source", "target", "text", "label", "prompt", "response"),
    *("test_size", "split_seed", "response_template"),
)
# sections with paths, what the hash of their content is called here, and its key in contents.json
HASHES = {"task": ("data", "data.test"), "backbone": ("weights", "backbone.path")}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1; None for one value) over seeds; nan if a value is nan."""

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a difference."""

    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """The runs of one configuration. `label`: its method and its differing settings."""

    label: str
    runs: Sequence[RunRecord]

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The metrics of the first run; parameter counts and names are the same in all."""
        return self.runs[0].metrics

    @property
    def score(self) -> Spread | None:
        """The primary metric over the seeds."""
        return measure_spread(self.runs, self.metrics["primary"])


@dataclass(frozen=True)
class Group:
    """The cells that were scored on the same examples, the best first.

    `data`: the limits and paths that replace the task's own data or the backbone's weights.
    """

    task: str
    scale: str
    backbone: str
    data: str
    cells: Sequence[Cell]

    @property
    def title(self) -> str:
        """The group's title, with control characters not escaped yet."""
        return f"{self.task}, scale {self.scale}, {self.backbone}" + f", {self.data}" * bool(
            self.data
        )

    @property
    def facts(self) -> dict[str, str]:
        """The values that all runs of the group share."""
        names = "task", "scale", "backbone", "data"
        return {name: getattr(self, name) for name in names}

    @property
    def runs(self) -> list[RunRecord]:
        """The runs of all cells."""
        return [run for cell in self.cells for run in cell.runs]

    @property
    def primary(self) -> str:
        """The name of the metric that ranks the cells, without its split."""
        return str(self.cells[0].metrics["primary"]).removeprefix("test/")


def group_runs(runs: Sequence[RunRecord]) -> list[Group]:
    """Group runs that were scored on the same examples with the same metric; rank their cells."""
    found: dict[Key, dict[tuple[str, ...], list[RunRecord]]] = {}
    for run in sorted(runs, key=_key):
        found.setdefault(_key(run), {}).setdefault(_scoring(run), []).append(run)
    return [
        Group(*key[:3], f"{_describe_data(members[0])} {name}".strip(), _rank_cells(members))
        for key, parts in found.items()
        for name, members in zip(_name_parts(list(parts)), parts.values(), strict=True)
    ]


def _scoring(run: RunRecord) -> tuple[str, ...]:
    """Return what decides the score besides the task: metric, columns, hashes of data and weights.

    The same content counts as the same, wherever it is.
    """
    task = as_mapping(run.config.get("task"))
    words = [f"{key}={task[key]}" for key in SCORING if task.get(key) is not None]
    references = as_mapping(run.config.get("evaluation")).get("references")
    words += [f"references={references}"] * (references not in (None, "raw"))
    hashes = ((name, run.contents.get(key)) for name, key in HASHES.values())
    words += [f"{name}={digest[:8]}" for name, digest in hashes if digest]
    return (f"metric={str(run.metrics['primary']).removeprefix('test/')}", *words)


def _name_parts(parts: Sequence[tuple[str, ...]]) -> list[str]:
    """Name each part of a group by the words that the others lack; "" for a single part."""
    shared = set.intersection(*map(set, parts))
    return [" ".join(word for word in words if word not in shared) for words in parts]


def _rank_cells(runs: Sequence[RunRecord]) -> list[Cell]:
    cells = group_by_cell(runs)
    labels = _label_runs([cell[0] for cell in cells])
    return sorted((Cell(*pair) for pair in zip(labels, cells, strict=True)), key=_rank)


def _key(run: RunRecord) -> Key:
    metrics = run.metrics
    hashed = [section for section, (_, key) in HASHES.items() if run.contents.get(key)]
    return metrics["task"], metrics["scale"], metrics["backbone"], _describe_data(run, hashed)


def _describe_data(run: RunRecord, hashed: Collection[str] = ()) -> str:
    """Name the limits and paths that replace the task's own data or the backbone's weights.

    `hashed`: sections whose paths are left out.
    """
    limits = as_mapping(run.config.get("limit"))
    overrides = [f"limit.{split}={count}" for split, count in limits.items() if count is not None]
    for section, key in (("backbone", "path"), ("task", "data"), ("task", "path")):
        place = as_mapping(run.config.get(section)).get(key)
        if place is not None and section not in hashed:
            overrides.insert(0, f"{section}.{key}={place}")
    return " ".join(overrides)


def group_by_cell(runs: Iterable[RunRecord]) -> list[list[RunRecord]]:
    """Group the runs that differ only in their seed."""
    cells: dict[str, list[RunRecord]] = {}
    for run in runs:
        cells.setdefault(f"{run.metrics['method']} {run.cell}", []).append(run)
    return list(cells.values())


def measure_spread(
    runs: Sequence[RunRecord], name: str, average: Callable[[Sequence[float]], float] = fmean
) -> Spread | None:
    """Return mean and deviation of metric `name` over `runs`; None if one of them lacks it.

    `average` replaces the mean.
    """
    if not all(name in run.metrics for run in runs):
        return None
    values = [run.metrics[name] for run in runs]
    if not all(map(is_number, values)):  # null replaces values that were not finite
        return Spread(math.nan)
    try:
        return Spread(average(values), stdev(map(float, values)) if len(values) > 1 else None)
    except OverflowError:
        return Spread(math.nan)


def _rank(cell: Cell) -> tuple[bool, bool, float]:
    """Sort the best first, then methods on a random backbone, then the untrained baseline."""
    score = cell.score.mean if cell.score else math.nan
    known = math.inf if math.isnan(score) else score
    if math.isfinite(known) and not is_lower_better(cell.metrics["primary"]):
        known = -known
    return cell.metrics["method"] == "none", _is_random(cell.runs[0]), known


def _is_random(run: RunRecord) -> bool:
    return bool(run.config["backbone"]["weights"] == "random")


def _label_runs(runs: Sequence[RunRecord]) -> list[str]:
    """Label each run by its method and its differences from others of that method."""
    names = [_name(run) for run in runs]
    labels = dict(enumerate(names))
    for name in dict.fromkeys(names):
        same = [number for number, other in enumerate(names) if other == name]
        differences = find_differences([runs[number].settings for number in same])
        for number, overrides in zip(same, differences, strict=True):
            labels[number] = f"{name} {overrides}".strip()
    # runs with the same settings on other weights or classes
    counts = Counter(labels.values())
    return [
        f"{label} ({runs[number].folder.name})" if counts[label] > 1 else label
        for number, label in labels.items()
    ]


def _name(run: RunRecord) -> str:
    method = str(run.metrics["method"])
    if method == "none":
        weights = "random" if _is_random(run) else "pretrained"
        return f"{weights} backbone, not fine-tuned (none)"
    return f"{method}, random backbone" if _is_random(run) else method
