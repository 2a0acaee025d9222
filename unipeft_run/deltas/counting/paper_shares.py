"""Parameter shares as the paper prints them, compared with its own formula. Imports nothing heavy.

He et al. 2022: Tables 2 to 6 and 12. The formula of Appendix B counts weight matrices only. All
shares of the generation tasks are shares of BART-large, those of the mBART runs too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import floor
from typing import Any

from unipeft_run.config.schema import RunConfig

BART_LARGE = 406_291_456
BACKBONES = {
    "xsum": "bart_large",
    "wmt16_en_ro": "mbart_large_cc25",
    "mnli": "roberta_base",
    "sst2": "roberta_base",
}
XSUM, EN_RO = ("xsum",), ("wmt16_en_ro",)
TEXT, GLUE = (*XSUM, *EN_RO), ("mnli", "sst2")
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
}
NO_SIZE = "the paper prints no size; this one meets the share by Appendix B"
ROWS: tuple[tuple[tuple[str, ...], str, str, float, str], ...] = (
    # tasks, parts with their sizes, where, percent, remark
    (TEXT, "full", "Table 6", 100, ""),
    (GLUE, "full", "Table 2", 100, ""),
    (TEXT, "BitFit", "Table 6", 0.1, ""),
    (GLUE, "BitFit", "Table 2", 0.1, "copied there from Ben Zaken et al., 2021"),
    (XSUM, "prompt 300", "Table 6", 0.1, "the size is the authors' plot script's"),
    (EN_RO, "prompt 200", "Table 6", 0.1, "the size is the authors' plot script's"),
    (EN_RO, "prefix 30", "Table 4", 0.1, ""),
    (EN_RO, "PA (attn) 30", "Table 4", 0.1, ""),
    (EN_RO, "MH PA 30", "Table 4", 0.1, ""),
    (EN_RO, "PA (ffn) 30", "Table 4", 0.1, ""),
    (TEXT, "prefix 200", "Tables 3, 6 and 12", 3.6, ""),
    (TEXT, "prefix 512", "Table 12", 9.2, ""),
    (EN_RO, "MH PA 200", "Table 4", 3.6, ""),
    (TEXT, "SA (attn) 200", "Tables 3 and 12", 3.6, ""),
    (TEXT, "SA (attn) 512", "Table 12", 9.2, ""),
    (TEXT, "PA (attn) 200", "Tables 3 and 12", 3.6, ""),
    (TEXT, "PA (attn) 512", "Table 12", 9.2, ""),
    (TEXT, "LoRA (attn) 200", "Table 12", 7.2, ""),
    (TEXT, "LoRA (ffn) 102", "Tables 5 and 12", 6.1, ""),
    (TEXT, "LoRA (ffn) 102", "Table 6", 7.2, "7.2 % is r=120"),
    (TEXT, "SA (ffn) 200", "Tables 3 and 12", 2.4, ""),
    (TEXT, "SA (ffn) 512", "Table 12", 6.1, ""),
    (TEXT, "SA (ffn) 1024", "Table 12", 12.3, ""),
    (TEXT, "PA (ffn) 200", "Tables 3 and 12", 2.4, ""),
    (TEXT, "PA (ffn) 512", "Tables 5 and 12", 6.1, ""),
    (TEXT, "PA (ffn) 1024", "Tables 6 and 12", 12.3, ""),
    (TEXT, "Pfeiffer 600", "Table 6", 7.2, ""),
    (TEXT, "PA (attn) 30 + PA (ffn) 512", "Table 6", 6.7, ""),
    (TEXT, "prefix 30 + LoRA (ffn) 102", "Table 6", 6.7, ""),
    (TEXT, "prefix 30 + PA (ffn) 512", "Table 6", 6.7, ""),
    (GLUE, "prefix 32", "Table 2", 0.5, NO_SIZE),
    (GLUE, "LoRA (attn) 16", "Table 2", 0.5, "the size is the authors' script's"),
    (GLUE, "SA (attn) 16 + SA (ffn) 16", "Table 2", 0.5, NO_SIZE),
    (GLUE, "prefix 16 + PA (ffn) 16", "Table 2", 0.5, ""),
)


def paper_shares(config: RunConfig, counted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the shares that the paper prints for a configuration: `where`, `percent`, `note`.

    `counted` is the result of `counts`. Empty if the backbone is not the paper's.
    """
    task = config.task.name
    if BACKBONES.get(task) != config.backbone.name:
        return []
    key = " + ".join(_parts(config))
    rows = [row for row in ROWS if task in row[0] and row[1] == key]
    return [
        {"where": where, "percent": share, "note": "; ".join(_notes(task, share, counted, remark))}
        for _, _, where, share, remark in rows
    ]


def _parts(config: RunConfig) -> Iterator[str]:
    """Name the parts of a configuration and their sizes as the rows above do."""
    freed = {"*": "full", "*bias": "BitFit"}
    if config.unfreeze or config.head == "trained":
        yield freed.get(" ".join(config.unfreeze), "more of the backbone")
    for slot in config.slots().values():
        where = slot.representation
        whole = where.layers == "all" and len(where.stacks) == len(where.attentions)
        axes = (" ".join(where.sites), slot.form.keywords.get("activation"), slot.insertion)
        yield f"{PARTS.get(axes) if whole else None} {slot.bottleneck}"


def _notes(task: str, share: float, counted: Mapping[str, Any], remark: str) -> Iterator[str]:
    base = BART_LARGE if task in TEXT else counted["backbone"]
    full = counted["formula"] == counted["backbone"]
    percent = 100.0 if full else 100 * counted["formula"] / base
    cut = floor(10 * percent) / 10  # most of the paper's shares are truncated, some rounded
    if share not in (cut, round(percent, 1)):
        yield f"its own formula gives {percent:.2f} %" + (" of BART-large" if task in TEXT else "")
    if remark:
        yield remark
    if task in EN_RO and not full:
        yield f"that is of BART-large; of mBART-large it is {counted['formula_percent']:.2f} %"
