"""The schema of the configuration of `unipeft eval`."""

from __future__ import annotations

from typing import Literal

from unipeft_run.config.schema import key
from unipeft_run.config.types import Section, StringOrList


class PlaceConfig(Section):
    path: str | None = key(
        "current folder of the data or the backbone; null: the folder recorded in the run", None
    )


class EvalConfig(Section):
    """The configuration of `unipeft eval`, as in conf/eval.yaml."""

    run: str = key("a run folder, or a run id")
    split: str = key("the split to evaluate")
    data: str | None = key("a file of examples to evaluate instead of a split", None)
    task: PlaceConfig
    backbone: PlaceConfig
    format: Literal["text", "json"] = key("how the metrics are printed", "text")
    allow: StringOrList = key("prefixes of classes outside unipeft_run that the run may name")
