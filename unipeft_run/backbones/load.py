"""A backbone from what `locate` found, or random."""

from collections.abc import Mapping
from typing import Any

import transformers
from torch import nn

from unipeft_run.backbones.sites import TABLES
from unipeft_run.errors import UserError


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
