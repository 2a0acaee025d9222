"""unipeft params: count the parameters that a configuration trains and stores, before it runs.

Heavy imports are inside functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unipeft_run.commands.arguments import Parser, as_json, split_overrides
from unipeft_run.commands.entry import entry
from unipeft_run.config import check_config, compose, load
from unipeft_run.config.hydra_errors import explain_missing
from unipeft_run.config.schema import RunConfig
from unipeft_run.deltas.counting.paper_shares import paper_shares
from unipeft_run.errors import UserError
from unipeft_run.runs.columns import align
from unipeft_run.runs.search import find_run

HELP = """\
Count the parameters that a configuration trains and stores, by slot and site, and show the share
that the paper prints. Loads no weights and needs no network."""
EXAMPLES = """\
unipeft params task=xsum method=mam
unipeft params task=mnli method=lora_attn attn.bottleneck=8 --format json
unipeft params task=sst2 method=mam backbone.path=DIR     a model folder's config.json is enough
unipeft params ab12cd34                                   the parameters of a run

site                a place that the slot changes; representation@attn=heads selects attn.heads
trained             parameters that the optimiser updates (a prefix with its MLP)
receiving gradient  trained parameters that the loss depends on: all, by construction
stored              parameters that inference needs besides the backbone (a prefix without MLP)
share               stored, in percent of the backbone (tied embeddings counted once)"""
COLUMNS = ("slot", "site", "sites", "trained", "receiving gradient", "stored", "share")


@entry
def main(argv: Sequence[str]) -> int:
    """Count and print; return the exit code."""
    parser = Parser("params", HELP, EXAMPLES)
    parser.add_argument("words", nargs="*", metavar="key=value | RUN", help="as for unipeft train")
    parser.add_format("text", "json")
    parser.add_allow()
    args = parser.parse(argv)
    config = read_config(args.words, args.allow)
    from unipeft_run.deltas.counting.counts import counts

    table = counts(config)
    table["paper"] = paper_shares(config, table)
    print(as_json(table) if args.format == "json" else _text(config, table))
    return 0


def read_config(words: Sequence[str], allow: Sequence[str]) -> RunConfig:
    """Return the configuration of a command line, or of the run that it names."""
    runs, overrides = split_overrides(words)
    if not words:
        raise UserError(explain_missing([], "count"))
    if len(runs) == 1 and not overrides:
        return load(find_run(runs[0]), allow)
    return check_config(compose(words))


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
    added = sum(row["stored"] for row in table["sites"] if row["slot"] != "unfreeze")
    if added:
        total = table["backbone"] + added
        percent = f"{100 * added / total:.2f} %"
        yield f"share of the backbone and the added parameters together: {percent}"
    for row in table["paper"]:
        note = f" ({row['note']})" if row["note"] else ""
        yield f"{row.get('by', 'the paper')} prints {row['percent']:g} % in {row['where']}{note}"
    if not table["paper"]:
        yield "the paper prints no share for this configuration"
