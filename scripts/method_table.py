"""Generate docs/methods.md and the method table of README.md, or check that they are up to date.

The sources are the files of conf/method/ and the paper's tables in conf/experiment/.

python scripts/method_table.py [--check]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipeft_run.config import compose, resolve
from unipeft_run.config.experiments import Cell, key_values, read_tables
from unipeft_run.config.messages import own_options
from unipeft_run.config.schema import AXES, RunConfig
from unipeft_run.deltas.counting.counts import counts
from unipeft_run.extensions import conf_dir

ROOT = Path(__file__).parent.parent
README, PAGE = ROOT / "README.md", ROOT / "docs" / "methods.md"
BEGIN, END = "<!-- methods: scripts/method_table.py writes this -->", "<!-- end of methods -->"
TASKS = ("xsum", "wmt16_en_ro", "mnli", "sst2")
MAIN_TABLE = "Table 6"
INTRODUCTION = """\
<!-- scripts/method_table.py writes this page -->
# Methods

Each method is a file in `conf/method/`. In its equation, h is the modified representation, x the
input of the sub-layer and q the query of a head. The trained parameters are W_down and W_up (an
adapter's or LoRA's matrices), P_k and P_v (the keys and values of a prefix), P (the vectors of a
prompt), the gate's w, and further vectors that the method names. lambda is the share of the
attention that a prefix receives, s a scale, g a gate between 0 and 1, LN a LayerNorm, and the FFN
the feed-forward network of a layer. Biases are left out. The axis values below are file names in
`conf/form/`, `conf/insertion/`, `conf/representation/` and `conf/composition/`; each can be
swapped on the command line:

    unipeft train task=xsum method=mam composition@ffn=add

A slot (`attn`, `ffn`, `input`, `matrix`) is a place for one change, described by the four axes; its
sites are the modules that it changes. `size` is the bottleneck r, or the length l of a prefix or
prompt, and the scale s. Some tasks use other sizes: `unipeft params task=TASK method=NAME` shows
them. `trained` counts the parameters that receive a gradient, `stored` those that inference needs
(of a prefix, the keys and values without the MLP that generated them), with the percentage of the
backbone.

The rows of the paper come from `conf/experiment/`. `share` is the percentage of parameters that the
paper prints, for `xsum` and `wmt16_en_ro` of BART-large; [Exchange](exchange.md) explains where it
differs from `stored`. Scores are ROUGE-1 / ROUGE-2 / ROUGE-L for `xsum` (in table 5 ROUGE-Lsum),
BLEU for `wmt16_en_ro`, and accuracy (%) for `mnli` and `sst2`. [Reports and tables](tables.md)
shows how to run a whole table or figure.
"""


@dataclass(frozen=True)
class Method:
    """A file of conf/method/ and the cells of the paper's tables that run it.

    `axes`: by slot, the name of each axis file. `cells`: with the label of their table.
    """

    name: str
    sentence: str
    equations: tuple[str, ...]
    axes: Mapping[str, Mapping[str, str]]
    cells: tuple[tuple[str, Cell], ...]

    @property
    def task(self) -> str:
        """The task whose setting is counted: the first that the paper has for the method."""
        printed = {cell.task for _, cell in self.cells}
        return next((task for task in TASKS if task in printed), TASKS[0])


def read_methods() -> list[Method]:
    """Read all methods; those that fill no slot come first."""
    return sorted(map(_read, own_options("method")), key=lambda method: list(method.axes))


def _read(name: str) -> Method:
    text = (conf_dir() / "method" / f"{name}.yaml").read_text(encoding="utf-8")
    _, sentence, *rest = re.findall(r"^# +(.*)$", text, re.MULTILINE)
    equations = tuple(line for line in rest if line.startswith("h <- "))
    axes: dict[str, dict[str, str]] = {}
    for axis, slot, value in re.findall(r"override /(\w+)@(\w+): (\w+)", text):
        axes.setdefault(slot, {})[axis] = value
    cells = [(table.label, cell) for table in read_tables() for cell in table.cells]
    own = (row for row in cells if key_values(row[1].overrides["paper"]).get("method") == name)
    return Method(name, sentence, equations, axes, tuple(own))


def render_page() -> str:
    """Render docs/methods.md: a section per method."""
    return "\n".join([INTRODUCTION, *("\n".join(_section(method)) for method in read_methods())])


def _section(method: Method) -> Iterator[str]:
    words = (f"task={method.task}", f"method={method.name}")
    config = resolve(compose(words))
    counted = counts(config)
    file = f"conf/method/{method.name}.yaml"
    yield f"## {method.name}\n\n{method.sentence} ([{file}](../{file})).\n"
    yield from (f"    {equation}" for equation in method.equations)
    yield f"\n```\nunipeft train {' '.join(words)}\n```\n"
    yield f"With `{words[0]}` on {config.backbone.name}:\n"
    yield _markdown([*_slots(method, config, counted), _total(counted)]) + "\n"
    if method.cells:
        yield _markdown(list(_paper_rows(method))) + "\n"
    else:
        yield "The paper's tables have no row for it.\n"


def _slots(
    method: Method, config: RunConfig, counted: Mapping[str, Any]
) -> Iterator[Mapping[str, str]]:
    """Yield a row per filled slot, and one for the unfrozen parameters."""
    for name, slot in config.slots().items():
        sites = [row for row in counted["sites"] if row["slot"] == name]
        size = str(slot.bottleneck or "") + (f", s={slot.scale:g}" if slot.scale else "")
        axes = {axis: method.axes[name][axis] for axis in AXES}
        yield {"slot": name, **axes, "size": size, **_sum(sites)}
    if config.unfreeze:
        sites = [row for row in counted["sites"] if row["slot"] == "unfreeze"]
        yield {"slot": f"`unfreeze=[{', '.join(config.unfreeze)}]`", **_sum(sites)}


def _sum(sites: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {key: f"{sum(s[key] for s in sites):,}" for key in ("sites", "trained", "stored")}


def _total(counted: Mapping[str, Any]) -> dict[str, str]:
    stored = f"{counted['stored']:,} ({counted['stored_percent']:.2f} %)"
    return {"slot": "total", "trained": f"{counted['trained']:,}", "stored": stored}


def _paper_rows(method: Method) -> Iterator[Mapping[str, str]]:
    """Yield a row per row of the paper, with the scores of all its tasks."""
    rows: dict[tuple[str, str], dict[str, Cell]] = {}
    for label, cell in method.cells:
        rows.setdefault((label, cell.row), {})[cell.task or ""] = cell
    for (label, row), cells in rows.items():
        first = next(iter(cells.values()))
        scores = {task: _scores(cells[task]) if task in cells else "" for task in TASKS}
        share = f"{first.share:g} %"
        yield {"table": label, "row": row, "share": share, **scores, "note": "; ".join(first.notes)}


def _scores(cell: Cell) -> str:
    """Format scores with the digits that the paper prints: two for ROUGE, one otherwise."""
    digits = 2 if cell.task == "xsum" else 1
    return " / ".join(f"{score:.{digits}f}" for score in cell.printed)


def render_table() -> str:
    """Render the README's table: a row per method, with one score of the paper."""
    return _markdown(
        [
            {
                "method": f"`{method.name}`",
                "what it changes": method.sentence,
                "XSum ROUGE-2 in the paper": _main_score(method),
            }
            for method in read_methods()
        ]
    )


def _main_score(method: Method) -> str:
    """Return ROUGE-2 at the method's own size, from table 6 if it has such a row."""
    own = {"task=xsum", f"method={method.name}"}
    cells = [row for row in method.cells if set(row[1].overrides["paper"]) == own]
    main = [row for row in cells if row[0] == MAIN_TABLE] or cells
    return f"{main[-1][1].printed[1]:.2f}" if main else ""


def _markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Render a Markdown table without the columns that are empty in all rows."""
    filled = {key for row in rows for key, value in row.items() if value}
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key in filled]
    body = [[row.get(key, "") for key in columns] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *body])


def replace_table(readme: str) -> str:
    """Replace the table between the two marks in `readme`."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, "README.md has no marks for the method table"
    return f"{before}{BEGIN}\n{render_table()}\n{END}{after}"


def main() -> int:
    """Return 1 if --check finds a file out of date."""
    rendered = {README: replace_table(_read_text(README)), PAGE: render_page()}
    stale = [file for file, text in rendered.items() if _read_text(file) != text]
    if "--check" in sys.argv[1:]:
        for file in stale:
            print(f"{file.name} is out of date: run python scripts/method_table.py")
        return int(bool(stale))
    for file in stale:
        file.write_text(rendered[file], encoding="utf-8")
    return 0


def _read_text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
