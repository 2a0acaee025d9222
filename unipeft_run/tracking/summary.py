"""Format the summaries that a run prints, before training and at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipeft_run.config.schema import RecipeConfig, RunConfig
from unipeft_run.runs.columns import align

COLUMNS = ("slot", "representation", "sites", "trained", "stored")


def prefix_keys(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` as metrics below `prefix`: loss becomes test/loss."""
    return {f"{prefix}/{key}": value for key, value in values.items()}


def format_headline(config: RunConfig, table: Mapping[str, Any], padding: float) -> str:
    """Format the composed run (slots, parameter counts, batch) in at most 72 columns.

    `table` is from `tabulate_parameters`; `padding` is a percentage of the positions in an epoch.
    """
    lines = [f"{config.task.name} | {config.backbone.name} | {config.method}"]
    total = {**table, "slot": "total", "representation": "", "sites": ""}
    rows = [[_cell(row[name]) for name in COLUMNS] for row in (*table["sites"], total)]
    lines += align(COLUMNS, rows, left=(0, 1))
    lines.append(f"stored: {table['stored_percent']:.2f} % of {table['backbone']:,} parameters")
    lines.append(f"per update: {_describe_batch(config.recipe)}, {padding:.2f} % padding")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _describe_batch(recipe: RecipeConfig) -> str:
    size = f"{recipe.batch_size} examples" if recipe.batch_size else ""
    size = size or f"{recipe.max_tokens:,} tokens of the longer side"
    accumulated = f"{recipe.accumulation} x " if recipe.accumulation > 1 else ""
    return f"{accumulated}{size}"


def format_result(summary: Mapping[str, Any], path: Path) -> str:
    """Format the closing table of a finished run."""
    primary = summary["primary"].removeprefix("test/")
    speed, unit = format_speed(summary).split(" ")
    trivial = summary.get(f"trivial/{primary}")
    rows = {
        f"test {primary}": f"{summary[f'test/{primary}']:.2f}",
        **(
            {"trivial baseline": f"{trivial:.2f} ({summary['trivial/name']})"}
            if trivial is not None
            else {}
        ),
        "test loss": f"{summary['test/loss']:.4f}",
        "trained parameters": _format_count(summary, "trained"),
        "stored parameters": _format_count(summary, "stored"),
        unit: speed,
        "run folder": str(path),
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def format_speed(record: Mapping[str, Any]) -> str:
    """Format the tokens per second, or the examples where they have no tokens."""
    tokens = record.get("train/tokens_per_second", 0)
    if tokens or not record.get("train/samples_per_second"):
        return f"{tokens:,.0f} tokens/s"
    return f"{record['train/samples_per_second']:,.1f} examples/s"


def _format_count(summary: Mapping[str, Any], kind: str) -> str:
    share = 100 * summary[f"parameters/{kind}"] / summary["parameters/backbone"]
    return f"{summary[f'parameters/{kind}']:,} ({share:.2f} % of the backbone)"
