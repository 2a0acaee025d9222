"""What a run says of itself: before it trains, and at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipeft_run.config.schema import RecipeConfig, RunConfig


def named(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as metrics of `prefix`: loss becomes test/loss."""
    return {f"{prefix}/{key}": value for key, value in values.items()}


def headline(config: RunConfig, table: Mapping[str, Any], padding: float) -> str:
    """What was composed, in one compact block.

    `table` comes from `tabulate_parameters`; `padding` is in percent of an epoch's positions.
    """
    lines = [f"{config.task.name} | {config.backbone.name} | {config.method}"]
    for row in table["sites"]:
        where = f"{row['slot']:>8}  {row['representation']:<14} {row['sites']:>4} sites"
        lines.append(f"{where}  trained {row['trained']:>11,}  stored {row['stored']:>11,}")
    share = f"{table['stored_percent']:.2f} % of {table['backbone']:,}"
    lines.append(f"   total  trained {table['trained']:,}  stored {table['stored']:,} ({share})")
    lines.append(f" batches  {_batches(config.recipe)}, {padding:.1f} % padding")
    return "\n".join(lines)


def _batches(recipe: RecipeConfig) -> str:
    size = f"{recipe.batch_size} examples" if recipe.batch_size else ""
    size = size or f"{recipe.max_tokens:,} tokens of the longer side"
    times = f"{recipe.accumulation} x " if recipe.accumulation > 1 else ""
    return f"{times}{size} an update"


def closing(summary: Mapping[str, Any], path: Path) -> str:
    """The printed table of a finished run."""
    primary = summary["primary"].removeprefix("test/")
    trained, stored = (_count(summary, kind) for kind in ("trained", "stored"))
    rows = {
        f"test {primary}": f"{summary[f'test/{primary}']:.2f}",
        f"trivial baseline ({summary['trivial/name']})": f"{summary[f'trivial/{primary}']:.2f}",
        "test loss": f"{summary['test/loss']:.4f}",
        "trained parameters": trained,
        "stored parameters": stored,
        "tokens/s": f"{summary.get('train/tokens_per_second', 0):,.0f}",
        "run folder": str(path),
    }
    return "\n".join(f"{name:<48} {value}" for name, value in rows.items())


def _count(summary: Mapping[str, Any], kind: str) -> str:
    share = 100 * summary[f"parameters/{kind}"] / summary["parameters/backbone"]
    return f"{summary[f'parameters/{kind}']:,} ({share:.2f} % of the backbone)"
