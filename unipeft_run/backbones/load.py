"""A backbone and its tokenizer, from a folder, from the miniatures, from the hub, or random."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from unipeft_run import sources
from unipeft_run.backbones.sites import TABLES
from unipeft_run.errors import UserError
from unipeft_run.tasks.hub import reachable


def locate(*, name: str, hub: str | None, path: str | None) -> str:
    """The folder or hub id of a backbone.

    Raises UserError, within seconds, where there is none.
    """
    if path is not None:
        if not (Path(path) / "config.json").is_file():
            raise UserError(f"backbone.path: no config.json in {path}")
        return path
    if hub is None:
        return str(sources.fetch_backbone(name))
    if not reachable():
        raise UserError(
            f"cannot reach the model hub for {hub}\n"
            "Without it: scale=mini (small real data and weights), or backbone.path=DIR"
        )
    return hub


def load_backbone(
    source: str,
    *,
    family: str,
    weights: str = "pretrained",
    num_labels: int | None = None,
    config: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The transformers model of `family` from `source`, in float32 and eval mode.

    `weights="random"` builds it from its configuration alone; `num_labels` sizes a classifier;
    `config` overrides fields of the configuration.
    """
    changes = {**(config or {}), **({"num_labels": num_labels} if num_labels else {})}
    loaded = transformers.AutoConfig.from_pretrained(source, **changes)
    if loaded.model_type != family:
        raise UserError(f"{source} holds a {loaded.model_type}, not a {family}")
    cls = getattr(transformers, TABLES[family].model)
    if weights == "random":
        return cls(loaded).eval()  # type: ignore[no-any-return]
    return cls.from_pretrained(source, config=loaded, dtype="float32").eval()  # type: ignore[no-any-return]
