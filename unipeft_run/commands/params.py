"""The console command unipeft-params: what a configuration trains and stores, before it runs.

Imports nothing heavy at the top.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from unipeft_run.commands.pipes import outlive_readers
from unipeft_run.config import compose, resolve
from unipeft_run.config.hydra_errors import needed
from unipeft_run.config.messages import unknown_choice
from unipeft_run.deltas.counting.paper_shares import printed
from unipeft_run.errors import UserError

FORMATS = ("text", "json")
HELP = """\
usage: unipeft-params task=TASK method=METHOD [key=value ...] [format=text|json]
  What a configuration trains and stores, by slot and site, as shares of its backbone; beside it
  the share that the paper prints. No weights are loaded, no hub is asked.

  Takes every override of unipeft-train (see unipeft-train --help).

  unipeft-params task=xsum method=mam
  unipeft-params task=mnli method=lora_attn attn.bottleneck=8 format=json
  unipeft-params task=sst2 method=mam backbone.path=DIR     a model folder's config.json is enough

  trained             numbers that the optimiser updates (a prefix with its MLP)
  receiving gradient  of these, what the loss depends on: here always all
  stored              what inference needs beside the backbone (a prefix without its MLP)
  share               stored, in percent of the backbone, its tied embeddings counted once"""
COLUMNS = ("slot", "site", "sites", "trained", "receiving gradient", "stored", "share")


def params() -> NoReturn:
    """unipeft-params."""
    outlive_readers()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """The exit code: 0, or 2 where the configuration is wrong."""
    if set(argv) & {"-h", "--help"}:
        print(HELP)
        return 0
    try:
        overrides, form = _split(argv)
        if not overrides:
            raise UserError(needed([]))
        cfg = resolve(compose(overrides))
        from unipeft_run.deltas.counting.counts import counts

        counted = counts(cfg)
        counted["paper"] = printed(cfg, counted)
        print(json.dumps(counted, indent=2) if form == "json" else _text(cfg, counted))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _split(argv: Sequence[str]) -> tuple[list[str], str]:
    """The overrides, and the value of format=."""
    overrides = [word for word in argv if not word.startswith("format=")]
    given = [word.removeprefix("format=") for word in argv if word.startswith("format=")]
    form = given[-1] if given else FORMATS[0]
    if form not in FORMATS:
        raise UserError(unknown_choice("format", form, FORMATS))
    return overrides, form


def _text(cfg: Mapping[str, Any], counted: Mapping[str, Any]) -> str:
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
    title = f"{cfg['task']['name']} | {cfg['backbone']['name']} | {cfg['method']}"
    return "\n".join([title, *table, *_beside(counted)])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = (f"{row[key]:,}" for key in ("trained", "receiving_gradient", "stored"))
    share = f"{row['stored_percent']:.2f} %"
    return (row["slot"], row["representation"], str(row["sites"]), *numbers, share)


def _beside(counted: Mapping[str, Any]) -> Iterator[str]:
    yield f"backbone: {counted['backbone']:,}"
    share = f"{counted['formula_percent']:.2f} %"
    yield f"by Appendix B of the paper (weight matrices only): {counted['formula']:,}, {share}"
    for row in counted["paper"]:
        note = f" ({row['note']})" if row["note"] else ""
        yield f"the paper prints {row['percent']:g} % in {row['where']}{note}"
    if not counted["paper"]:
        yield "the paper prints no share of this one"
