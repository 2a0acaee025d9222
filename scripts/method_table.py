"""Generate the method table of README.md from conf/method/, or check that it is up to date.

python scripts/method_table.py [--check]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import hydra

from unipeft_run.config import RunConfig, compose, resolve
from unipeft_run.config.messages import conf_dir, options
from unipeft_run.config.schema import AXES

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- methods: scripts/method_table.py writes this -->", "<!-- end of methods -->"
HEAD = ("method", "slot", *AXES, "number", "equation", "in the paper")


def render_table() -> str:
    """Markdown with a row for each slot that a method fills, the simplest methods first."""
    found = {name: _rows(name) for name in options("method")}
    order = sorted(found, key=lambda name: [row[1] for row in found[name]])
    rows = [HEAD, ("---",) * len(HEAD), *(row for name in order for row in found[name])]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _rows(method: str) -> list[tuple[str, ...]]:
    """The rows of one method; its name and tables in the paper are in the first row only."""
    words = ("task=xsum", f"method={method}")
    config = resolve(compose(words))
    text = (conf_dir() / "method" / f"{method}.yaml").read_text(encoding="utf-8")
    head = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    paper = "<br>".join(line for line in head if re.match(r"Tables? \d|No row", line))
    slots = list(_slots(config, _chosen_files(words)))
    slots = slots or [("", *(("",) * len(AXES)), _unfrozen(config))]
    equations = [_equation(line) for line in head if line.startswith("h <- ")]
    equations += [""] * (len(slots) - len(equations))
    rows = [("", *slot, equation, "") for slot, equation in zip(slots, equations, strict=True)]
    return [(f"`{method}`", *rows[0][1:-1], paper), *rows[1:]]


def _chosen_files(words: Sequence[str]) -> Mapping[str, str]:
    """Hydra's record of the file chosen for each group."""
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose("train", list(words), return_hydra_config=True).hydra.runtime.choices


def _slots(config: RunConfig, files: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """Yield the name, the four axes and the numbers of every slot that is filled."""
    for name, slot in config.slots().items():
        axes = (files[f"{axis}@{name}"] for axis in AXES)
        scale = f", s={slot.scale:g}" if slot.scale else ""
        yield name, *axes, f"{slot.bottleneck}{scale}"


def _unfrozen(config: RunConfig) -> str:
    """The trainable backbone parameters of a method without slots."""
    return f"`unfreeze={list(config.unfreeze)}`".replace("'", '"')


def _equation(line: str) -> str:
    """Format a line `formula   where it appears`, separated by three spaces."""
    formula, _, where = line.partition("   ")
    return f"`{formula}` {where.strip()}"


def replace_table(readme: str) -> str:
    """Replace the table between the two marks in `readme`."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, "README.md has no marks for the method table"
    return f"{before}{BEGIN}\n{render_table()}\n{END}{after}"


def main() -> int:
    """Return 1 if --check finds an outdated table."""
    old = README.read_text(encoding="utf-8")
    new = replace_table(old)
    if "--check" in sys.argv[1:]:
        if new != old:
            print("the method table of README.md is out of date: python scripts/method_table.py")
        return int(new != old)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
