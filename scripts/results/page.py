"""Write docs/results.md: the template filled with tables of the stored runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from string import Template

from archive import Record, read_records
from claims import CLAIMS, MARGIN
from claims_page import Findings, render_claims, render_summary
from estimates import judge
from grid import (
    FACTORS,
    LORA_S2,
    PRIMARY,
    SEEDS,
    STEPS,
    TRIAL_SEED,
    TRIAL_STEPS,
    Cell,
    cell_of,
    extra_cell,
    list_cells,
    read_experiments,
)
from rates import Trial, choose_rates, read_trials

from unipeft_run.config import compose, resolve
from unipeft_run.config.experiments import Experiment
from unipeft_run.report.cells import Spread
from unipeft_run.report.render import render_markdown
from unipeft_run.report.significance import SAMPLES
from unipeft_run.report.tables import CONTAMINATION, Row, Table

LORA_ATTENTION = Cell("task=xsum method=lora_attn attn.bottleneck=32")
TEMPLATE = Path(__file__).with_name("template.md")
Runs = Mapping[str, Sequence[Record]]  # name of a cell -> its finished runs


def render(folder: Path) -> str:
    """Render the page from runs.parquet and trials.parquet in `folder`."""
    trials = read_records(folder / "trials.parquet")
    records = read_records(folder / "runs.parquet")
    runs = group_by_cell(records)
    findings = judge(CLAIMS, runs)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        summary=render_summary(findings),
        runs="\n".join(_describe_runs(runs, trials)),
        samples=f"{SAMPLES:,}",
        ordered=_count_ordered(findings),
        lora=_compare_lora_scales(runs),
        margin=f"{MARGIN:g}",
        claims="\n\n".join(render_claims(findings)),
        tables="\n\n".join(_render_tables(runs)),
        trials=len(FACTORS),
        factors=", ".join(f"{factor:g}" for factor in FACTORS),
        trial_steps=", ".join(f"{steps} updates on {task}" for task, steps in TRIAL_STEPS.items()),
        trial_seed=TRIAL_SEED,
        highest=_count_highest(trials),
        rates="\n\n".join(_render_trials(trials)),
        missing=_list_missing(records),
        seeds=",".join(map(str, SEEDS)),
    )


def _count_ordered(findings: Findings) -> str:
    """Return, for example, `all 28`, or `17 of 28` while runs are missing."""
    total = sum(len(claim.pairs) for claim in CLAIMS if not claim.close)
    judged = sum(finding.p_holm is not None for found in findings for finding in found)
    return f"all {total}" if judged == total else f"{judged} of {total}"


def _compare_lora_scales(runs: Runs) -> str:
    """Describe the two comparisons on xsum that LoRA's scale s=2 was used for at first."""
    lora, mam, attention = (
        fmean(record.sample.total for record in runs[cell.name])
        for cell in (extra_cell(LORA_S2, "xsum"), Cell("task=xsum method=mam"), LORA_ATTENTION)
    )
    return (
        f"with s=2, MAM minus LoRA (ffn) is {mam - lora:+.2f}, and LoRA (ffn) minus LoRA (attn) "
        f"{lora - attention:+.2f}"
    )


def group_by_cell(records: Sequence[Record]) -> Runs:
    """Group finished runs by the name of their cell."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.state == "done":
            found.setdefault(record.cell, []).append(record)
    return found


def _describe_runs(runs: Runs, trials: Sequence[Record]) -> Iterator[str]:
    cells = list_cells()
    done = [record for cell in cells for record in runs.get(cell.name, [])]
    machines = dict.fromkeys(record.machine for record in [*done, *trials])
    yield (
        f"* {len(done)} of {len(cells) * len(SEEDS)} runs: {len(cells)} configurations with the "
        f"seeds {', '.join(map(str, SEEDS))}. Before them, {len(trials)} trials of learning rates."
    )
    yield (
        f"* {_count_hours(done):.1f} hours of one thread for the runs, {_count_hours(trials):.1f} "
        f"for the trials; two at a time, on two cores. Machine: {'; '.join(machines)}."
    )
    yield (
        "* To save time, runs make 40 % of the recipe's updates (mnli: 30 %): "
        f"{', '.join(_describe_budgets())}. The learning rate comes from the trials, and each run "
        "is evaluated twice; otherwise the miniature recipe applies, with the whole test split."
    )
    yield from _compare_trivial(runs)
    yield f"* mnli: {CONTAMINATION}."


def _describe_budgets() -> Iterator[str]:
    for task, steps in STEPS.items():
        recipe = resolve(compose([f"task={task}", "method=none", "scale=mini"])).recipe
        yield f"{steps} of {recipe.max_steps} on {task}"


def _compare_trivial(runs: Runs) -> Iterator[str]:
    """Yield how many configurations of each task beat its trivial baseline."""
    for task, metric in PRIMARY.items():
        found = [records for cell, records in runs.items() if Cell(cell).task == task]
        if found:
            scores = found[0][0].scores
            trivial = scores[f"trivial/{metric}"]
            means = [fmean(record.scores[f"test/{metric}"] for record in each) for each in found]
            yield (
                f"* {task}: {sum(mean > trivial for mean in means)} of {len(found)} configurations "
                f"beat the trivial baseline, {scores['trivial/name']}: {trivial:.2f} {metric}."
            )


def _count_hours(records: Sequence[Record]) -> float:
    return sum(record.scores.get("wall_seconds", 0.0) for record in records) / 3600


def _render_tables(runs: Runs) -> Iterator[str]:
    for experiment in read_experiments():
        for task in experiment.metrics:
            yield "#" + render_markdown([_make_table(experiment, task, runs)])


def _make_table(experiment: Experiment, task: str, runs: Runs) -> Table:
    rows = []
    metrics = experiment.metrics[task]
    for published in (cell for cell in experiment.cells if cell.task == task):
        found = runs.get(cell_of(published).name, [])
        row: Row = {
            "row": published.row,
            "% printed": published.share,
            "% ours": found[0].scores["parameters/stored_percent"] if found else None,
            "seeds": len(found) or None,
        }
        deviations = published.std or (None,) * len(metrics)
        for metric, mean, std in zip(metrics, published.printed, deviations, strict=True):
            row[f"{metric} printed"] = Spread(mean, std)
            row[f"{metric} ours"] = _measure(found, metric)
        rows.append(row)
    return Table(f"{experiment.title}: {task}", {}, rows, experiment.notes)


def _measure(records: Sequence[Record], metric: str) -> Spread | None:
    values = [float(record.scores[f"test/{metric}"]) for record in records]
    if not values:
        return None
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None)


def _render_trials(records: Sequence[Record]) -> Iterator[str]:
    chosen, found = choose_rates(records), read_trials(records)
    for task in TRIAL_STEPS:
        rows = [
            _trial_row(method, trials, chosen[task, method])
            for (name, method), trials in sorted(found.items())
            if name == task
        ]
        yield "#" + render_markdown([Table(f"Trials on {task}", {}, rows)])


def _count_highest(records: Sequence[Record]) -> str:
    chosen, found = choose_rates(records), read_trials(records)
    highest = sum(chosen[key] == trials[-1].rate for key, trials in found.items())
    return f"{highest} of {len(found)}"


def _trial_row(method: str, trials: Sequence[Trial], chosen: float) -> Row:
    row: Row = {"method": method}
    for number, trial in enumerate(trials, start=1):
        loss = "diverged" if trial.loss is None else f"{trial.loss:.4f}"
        row[f"rate {number}: validation loss"] = f"{trial.rate:g}: {loss}"
    return {**row, "chosen": f"{chosen:g}"}


def _list_missing(records: Sequence[Record]) -> str:
    """Tabulate the cells that lack a seed, with the reason."""
    states = {(record.cell, record.seed): record.state for record in records}
    rows = []
    for cell in list_cells():
        found = {seed: states.get((cell.name, seed), "not run yet") for seed in SEEDS}
        missing = [f"{seed}: {state}" for seed, state in found.items() if state != "done"]
        rows += [f"| `{cell.name}` | {', '.join(missing)} |"] * bool(missing)
    if not rows:
        return "None: every cell has been run with every seed."
    return "\n".join(["| cell | seeds without a result |", "|---|---|", *rows])
