"""Format the values of tables as text, in the same way for every output format."""

from __future__ import annotations

from unipeft_run.report.cells import Interval, Spread
from unipeft_run.report.tables import Row, Table, Value
from unipeft_run.runs.printable import printable

DECIMALS = {"loss": 4, "tokens/s": 0, "seconds": 0}  # default 2; printed scores as in the paper
DECIMALS |= {"accuracy printed": 1, "bleu_paper printed": 1}
P_VALUE = "p "  # starts the names of columns with p-values
LARGEST = 1e15  # written without an exponent


def format_row(table: Table, row: Row, sign: str = "+-") -> list[str]:
    """Write the values of `row`; `sign` precedes a standard deviation. All texts are printable."""
    return [format_value(name, row.get(name), sign) for name in table.columns]


def format_value(name: str, value: Value, sign: str = "+-") -> str:
    """Write a value of column `name`; empty for None."""
    if value is None or isinstance(value, str):
        return printable(value or "")
    if isinstance(value, Interval):
        return f"{value.low:+.2f} to {value.high:+.2f}"
    if isinstance(value, int | float) and name == "% printed":
        return f"{value:g}"
    if isinstance(value, int):
        return _format_number(value, 0)
    if isinstance(value, float) and name.startswith(P_VALUE):
        return f"{value:.4f}"
    decimals = DECIMALS.get(name, 2)
    if isinstance(value, float):
        return _format_number(value, decimals)
    std = "" if value.std is None else f" {sign} {_format_number(value.std, decimals)}"
    return f"{_format_number(value.mean, decimals)}{std}"


def sort_value(value: Value) -> float | None:
    """Return the number by which a value is sorted; None for texts, intervals and empty cells."""
    number = value.mean if isinstance(value, Spread) else value
    return float(number) if isinstance(number, int | float) else None


def is_numeric(table: Table, name: str) -> bool:
    """Return whether column `name` holds no text or interval, so that it is aligned right."""
    return not any(isinstance(row.get(name), str | Interval) for row in table.rows)


def _format_number(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}" if abs(value) < LARGEST else f"{value:.4g}"
