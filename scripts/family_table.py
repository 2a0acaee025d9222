"""Generate the tables of docs/backbones.md, or check that they are up to date.

The sources are the families' tables in unipeft_run/backbones/.

python scripts/family_table.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.backbones.family import Family
from unipeft_run.config.legality import SITES

PAGE = Path(__file__).parent.parent / "docs" / "backbones.md"
BEGIN, END = "<!-- families: scripts/family_table.py writes this -->", "<!-- end of families -->"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def facts(family: Family) -> list[str]:
    """Return one row: name, model, stacks, attention types and what is special."""
    stacks = ", ".join(
        f"{name} ({', '.join(stack.attentions)})" for name, stack in family.stacks.items()
    )
    return [
        f"`{family.name}`",
        f"`{family.model}`",
        family.task_type.replace("_", " "),
        stacks,
        ", ".join(special(family)) or "-",
    ]


def special(family: Family) -> Iterator[str]:
    if any(stack.kv_heads for stack in family.stacks.values()):
        yield "grouped-query attention"
    if family.activation is None:
        yield "gated FFN"
    if family.relative_bias:
        yield "relative position bias"
    if ":" in family.attention["attn.query"].rpartition(":out")[2]:
        yield "one matrix for query, key and value"
    if family.query is None:
        yield "no normalised query"
    if family.positions:
        yield "positions can be shifted"
    if family.prompt is None:
        yield "no prompt"


def representation_rows() -> Iterator[list[str]]:
    """Yield the sites, each with the taps of the families that have it."""
    for site in dict.fromkeys(site for sites in SITES.values() for site in sites):
        groups: dict[str, list[str]] = {}
        for family in FAMILIES.values():
            taps = family.taps(site)
            if site == "embedding" and family.prompt:
                taps = family.prompt.write
            if taps:
                groups.setdefault(taps, []).append(family.name)
        for taps, families in groups.items():
            yield [f"`{site}`", f"`{taps}`", ", ".join(families)]


def render() -> str:
    families = table(
        ("family", "model", "task type", "stacks (attentions)", "special"),
        [facts(family) for family in FAMILIES.values()],
    )
    sites = table(("site", "x is read -> h is written", "families"), list(representation_rows()))
    return f"{BEGIN}\n\n{families}\n\n### Sites\n\n{sites}\n\n{END}"


def main(arguments: Sequence[str]) -> int:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    updated = before + render() + rest.split(END)[1]
    if "--check" not in arguments:
        PAGE.write_text(updated, encoding="utf-8")
    elif updated != text:
        print(f"{PAGE} is outdated: run python scripts/family_table.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
