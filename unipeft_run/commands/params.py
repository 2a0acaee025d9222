"""unipeft-params: count the parameters that a configuration trains and stores, before it runs.

Imports nothing heavy at the top.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.config import compose, resolve
from unipeft_run.config.hydra_errors import needed
from unipeft_run.config.messages import unknown_choice
from unipeft_run.config.schema import RunConfig
from unipeft_run.deltas.counting.paper_shares import paper_shares
from unipeft_run.errors import UserError

FORMATS = ("text", "json")
HELP = """\
usage: unipeft-params task=TASK method=METHOD [key=value ...] [format=text|json]
  Count the parameters that a configuration trains and stores, by slot and site, and show the share
  that the paper prints. Loads no weights and needs no network.

  Takes every override of unipeft-train (see unipeft-train --help).

  unipeft-params task=xsum method=mam
  unipeft-params task=mnli method=lora_attn attn.bottleneck=8 format=json
  unipeft-params task=sst2 method=mam backbone.path=DIR     a model folder's config.json is enough

  trained             parameters that the optimiser updates (a prefix with its MLP)
  receiving gradient  those of them that the loss depends on: all, by construction
  stored              parameters that inference needs beside the backbone (a prefix without MLP)
  share               stored, in percent of the backbone (tied embeddings counted once)"""
COLUMNS = ("slot", "site", "sites", "trained", "receiving gradient", "stored", "share")


def params() -> NoReturn:
    """unipeft-params."""
    ignore_broken_pipes()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run the command; return 0, or 2 for a wrong configuration."""
    if set(argv) & {"-h", "--help"}:
        print(HELP)
        return 0
    try:
        overrides, form = _split(argv)
        if not overrides:
            raise UserError(needed([]))
        config = resolve(compose(overrides))
        from unipeft_run.deltas.counting.counts import counts

        counted = counts(config)
        counted["paper"] = paper_shares(config, counted)
        print(json.dumps(counted, indent=2) if form == "json" else _text(config, counted))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _split(argv: Sequence[str]) -> tuple[list[str], str]:
    """Split the overrides from the value of format=."""
    overrides = [word for word in argv if not word.startswith("format=")]
    given = [word.removeprefix("format=") for word in argv if word.startswith("format=")]
    form = given[-1] if given else FORMATS[0]
    if form not in FORMATS:
        raise UserError(unknown_choice("format", form, FORMATS))
    return overrides, form


def _text(config: RunConfig, counted: Mapping[str, Any]) -> str:
    total = {**counted, "slot": "total", "representation": "", "sites": ""}
    rows = [COLUMNS, *(_cells(row) for row in (*counted["sites"], total))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    table = [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    title = f"{config.task.name} | {config.backbone.name} | {config.method}"
    return "\n".join([title, *table, *_footer(counted)])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = (f"{row[key]:,}" for key in ("trained", "receiving_gradient", "stored"))
    share = f"{row['stored_percent']:.2f} %"
    return (row["slot"], row["representation"], str(row["sites"]), *numbers, share)


def _footer(counted: Mapping[str, Any]) -> Iterator[str]:
    yield f"backbone: {counted['backbone']:,}"
    share = f"{counted['formula_percent']:.2f} %"
    yield f"by Appendix B of the paper (weight matrices only): {counted['formula']:,}, {share}"
    for row in counted["paper"]:
        note = f" ({row['note']})" if row["note"] else ""
        yield f"the paper prints {row['percent']:g} % in {row['where']}{note}"
    if not counted["paper"]:
        yield "the paper prints no share for this configuration"
