"""unipeft-params: count the parameters that a configuration trains and stores, before it runs.

Heavy imports are inside functions.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from unipeft_run.commands.pipes import ignore_broken_pipes
from unipeft_run.config import compose, resolve
from unipeft_run.config.hydra_errors import explain_missing
from unipeft_run.config.messages import unknown_choice
from unipeft_run.config.schema import RunConfig
from unipeft_run.deltas.counting.paper_shares import paper_shares
from unipeft_run.errors import UserError
from unipeft_run.runs.columns import align

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
  receiving gradient  trained parameters that the loss depends on: all, by construction
  stored              parameters that inference needs besides the backbone (a prefix without MLP)
  share               stored, in percent of the backbone (tied embeddings counted once)"""
COLUMNS = ("slot", "site", "sites", "trained", "receiving gradient", "stored", "share")


def params() -> NoReturn:
    """Run unipeft-params."""
    ignore_broken_pipes()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit code: 0, or 2 for a user error."""
    if set(argv) & {"-h", "--help"}:
        print(HELP)
        return 0
    try:
        overrides, output_format = _split(argv)
        if not overrides:
            raise UserError(explain_missing([]))
        config = resolve(compose(overrides))
        from unipeft_run.deltas.counting.counts import counts

        table = counts(config)
        table["paper"] = paper_shares(config, table)
        print(json.dumps(table, indent=2) if output_format == "json" else _text(config, table))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _split(argv: Sequence[str]) -> tuple[list[str], str]:
    """Separate the overrides from the value of format=."""
    overrides = [argument for argument in argv if not argument.startswith("format=")]
    formats = [a.removeprefix("format=") for a in argv if a.startswith("format=")]
    output_format = formats[-1] if formats else FORMATS[0]
    if output_format not in FORMATS:
        raise UserError(unknown_choice("format", output_format, FORMATS))
    return overrides, output_format


def _text(config: RunConfig, table: Mapping[str, Any]) -> str:
    total = {**table, "slot": "total", "representation": "", "sites": ""}
    lines = align(COLUMNS, [_cells(row) for row in (*table["sites"], total)], left=(0, 1))
    title = f"{config.task.name} | {config.backbone.name} | {config.method}"
    return "\n".join([title, *lines, *_footer(table)])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (f"{row[key]:,}" for key in ("trained", "receiving_gradient", "stored"))
    share = f"{row['stored_percent']:.2f} %"
    return (row["slot"], row["representation"], str(row["sites"]), *counts, share)


def _footer(table: Mapping[str, Any]) -> Iterator[str]:
    yield f"backbone: {table['backbone']:,}"
    share = f"{table['formula_percent']:.2f} %"
    yield f"by Appendix B of the paper (weight matrices only): {table['formula']:,}, {share}"
    for row in table["paper"]:
        note = f" ({row['note']})" if row["note"] else ""
        yield f"the paper prints {row['percent']:g} % in {row['where']}{note}"
    if not table["paper"]:
        yield "the paper prints no share for this configuration"
