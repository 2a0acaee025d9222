"""Run docs/notebook.ipynb and write its outputs; with --check, compare them instead.

The cells run in a temporary folder, in this process. Numbers may differ between machines, so
--check compares the outputs without their digits.

    python scripts/notebook.py [--check] [FILE]
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Run docs/notebook.ipynb and write its outputs.")
    parser.add_argument("--check", action="store_true", help="compare the outputs, write nothing")
    parser.add_argument("file", nargs="?", type=Path, default=NOTEBOOK)
    args = parser.parse_args(argv)
    file = args.file.resolve()
    notebook = json.loads(file.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        namespace: dict[str, Any] = {"__name__": "__main__"}
        for number, cell in enumerate(cells, 1):
            outputs = run_cell("".join(cell["source"]), namespace, number)
            if args.check and _mask(outputs) != _mask(cell["outputs"]):
                print(
                    f"cell {number} prints\n{_text(outputs)}\ninstead of\n{_text(cell['outputs'])}"
                )
                return 1
            cell |= {"outputs": outputs, "execution_count": number}
    if not args.check:
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        file.write_text(text + "\n", encoding="utf-8")
    return 0


def run_cell(source: str, namespace: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Execute one cell as Jupyter does; return its outputs: what it prints, its last value."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {number}", "exec"), namespace)
        if isinstance(last, ast.Expr):
            code = compile(ast.Expression(last.value), f"cell {number}", "eval")
            value = eval(code, namespace)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(text)})
    if value is not None:
        data = {"text/plain": _lines(repr(value))}
        outputs.append(
            {
                "data": data,
                "execution_count": number,
                "metadata": {},
                "output_type": "execute_result",
            }
        )
    return outputs


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _text(outputs: list[dict[str, Any]]) -> str:
    """Join the text of a cell's outputs."""
    return "\n".join("".join(o.get("text") or o["data"]["text/plain"]) for o in outputs)


def _mask(outputs: list[dict[str, Any]]) -> str:
    """Return the text of a cell's outputs without its numbers."""
    return re.sub(r"\d+(\.\d+)?(e[+-]\d+)?", "0", _text(outputs))


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.exit(main(sys.argv[1:]))
