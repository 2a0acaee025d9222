"""The printed parameter shares of a configuration: the paper's, and those of leaderboard rows.

The shares are those of the tables and leaderboards in conf/experiment/. The paper's formula, in
Appendix B, counts weight matrices only. All its shares of the generation tasks are percentages of
BART-large, also for mBART. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import floor
from typing import Any

from unipeft_run.config.experiments import key_values, read_leaderboards, read_tables
from unipeft_run.config.schema import RunConfig

BART_LARGE = 406_291_456
BACKBONES = {
    "xsum": "bart_large",
    "wmt16_en_ro": "mbart_large_cc25",
    "mnli": "roberta_base",
    "sst2": "roberta_base",
}
# sites, activation, insertion -> a part's name
PARTS = {
    ("attn.heads", "softmax", "parallel"): "prefix",
    ("attn.heads", "relu", "parallel"): "MH PA",
    ("attn.context", "relu", "parallel"): "PA (attn)",
    ("attn.output", "relu", "sequential"): "SA (attn)",
    ("attn.query attn.value", "identity", "parallel"): "LoRA (attn)",
    ("ffn", "relu", "parallel"): "PA (ffn)",
    ("ffn", "relu", "sequential"): "SA (ffn)",
    ("ffn.block", "relu", "post_norm"): "Pfeiffer",
    ("ffn.up ffn.down", "identity", "parallel"): "LoRA (ffn)",
    ("embedding", None, "parallel"): "prompt",
    ("ffn.up ffn.down", "tanh", "parallel"): "adapters (up, down)",
}


def paper_shares(config: RunConfig, counted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the printed shares of a configuration: `where`, `percent`, `note`.

    Those of a leaderboard row also have `by`, their source. `counted` is the result of `counts`.
    Empty if no such configuration was printed, as with another backbone.
    """
    return [*_of_paper(config, counted), *_of_leaderboards(config, counted)]


def _of_leaderboards(config: RunConfig, counted: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    parts, added = name_parts(config), counted["stored"]
    of_all = 100 * added / (counted["backbone"] + added)
    for board in read_leaderboards():
        for cell in board.cells:
            backbone = key_values(cell.overrides["paper"]).get("backbone")
            of_config = (cell.task, backbone) == (config.task.name, config.backbone.name)
            if cell.share is None or cell.parts != parts or not of_config:
                continue
            ours = of_all if cell.share_of == "all" else counted["stored_percent"]
            same = round(ours, 2) == cell.share
            notes = [f"ours is {ours:.2f} %"] * (not same)
            if cell.share_of == "all":
                notes.append("of the backbone and the adapters together")
            note = "; ".join([*notes, *filter(None, [cell.size_note])])
            by = cell.share_source or cell.source
            yield {"by": by, "where": cell.row, "percent": cell.share, "note": note}


def _of_paper(config: RunConfig, counted: Mapping[str, Any]) -> list[dict[str, Any]]:
    task = config.task.name
    if BACKBONES.get(task) != config.backbone.name:
        return []
    return [
        {
            "where": _cite(tables),
            "percent": share,
            "note": "; ".join(_notes(task, share, counted, size_note)),
        }
        for (share, size_note), tables in _printed(task, name_parts(config)).items()
    ]


def name_parts(config: RunConfig) -> str:
    """Name the modules of a configuration and their sizes: prefix 30 + PA (ffn) 512."""
    return " + ".join(_parts(config))


def _cite(tables: Iterable[str]) -> str:
    """Join the labels of tables: Tables 3, 6 and 12."""
    *others, last = dict.fromkeys(label.removeprefix("Table ") for label in tables)
    return f"Tables {', '.join(others)} and {last}" if others else f"Table {last}"


def _printed(task: str, parts: str) -> dict[tuple[float, str], list[str]]:
    """Find the printed shares of `parts` and their size notes, with the tables that print them."""
    found: dict[tuple[float, str], list[str]] = {}
    for table in read_tables():
        for cell in table.cells:
            if cell.task == task and cell.parts == parts and cell.share is not None:
                found.setdefault((cell.share, cell.size_note), []).append(table.label)
    return found


def _parts(config: RunConfig) -> Iterator[str]:
    freed = {"*": "full", "*bias": "BitFit"}
    if config.unfreeze or config.head == "trained":
        yield freed.get(" ".join(config.unfreeze), "more of the backbone")
    for slot in config.slots().values():
        where = slot.representation
        whole = where.layers == "all" and len(where.stacks) == len(where.attentions)
        axes = (" ".join(where.sites), slot.form.keywords.get("activation"), slot.insertion)
        yield f"{PARTS.get(axes) if whole else None} {slot.bottleneck}"


def _notes(task: str, share: float, counted: Mapping[str, Any], size_note: str) -> Iterator[str]:
    generates = BACKBONES[task] != "roberta_base"
    base = BART_LARGE if generates else counted["backbone"]
    full = counted["formula"] == counted["backbone"]
    percent = 100.0 if full else 100 * counted["formula"] / base
    cut = floor(10 * percent) / 10  # most of the paper's shares are truncated, some rounded
    if share not in (cut, round(percent, 1)):
        yield f"its own formula gives {percent:.2f} %" + (" of BART-large" if generates else "")
    if size_note:
        yield size_note
    if BACKBONES[task] == "mbart_large_cc25" and not full:
        yield f"that is of BART-large; of mBART-large it is {counted['formula_percent']:.2f} %"
