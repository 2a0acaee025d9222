"""Restore the plain backbone of a loaded run, whose trained weights replaced the backbone's own.

A run that trains backbone weights (BitFit, full fine-tuning, a classifier) stores their new values.
Keeping the old ones could double the memory of the model, so they are read again when needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unipeft_run.config import RunConfig
from unipeft_run.errors import UserError

ATTRIBUTE = "_unipeft_origin"


@dataclass(frozen=True)
class Origin:
    """The configuration and the folder or hub id from which a plain backbone can be read."""

    config: RunConfig
    source: str

    def plain_values(self) -> dict[str, torch.Tensor]:
        """Read the plain values of the backbone weights that the run trained, by name.

        Raises UserError if the backbone is no longer there.
        """
        from unipeft_run.deltas.build import load_plain, unfreeze_patterns
        from unipeft_run.deltas.slots import matching_parameters

        patterns = unfreeze_patterns(self.config)
        if not patterns:
            return {}
        plain = dict(load_plain(self.config, self.source).named_parameters())
        return {name: plain[name] for name in matching_parameters(plain, patterns)}


def set_origin(model: Any, config: RunConfig, source: str) -> None:
    """Record where the plain backbone of a run's model comes from."""
    setattr(model, ATTRIBUTE, Origin(config, source))


def find_origin(model: nn.Module) -> Origin | None:
    """Return the origin of a run's model; None for any other model."""
    return vars(model).get(ATTRIBUTE)


def refuse_trained(model: nn.Module) -> None:
    """Raise UserError for a run's model whose backbone weights the run trained."""
    from unipeft_run.deltas.build import unfreeze_patterns

    origin = find_origin(model)
    if origin and unfreeze_patterns(origin.config):
        raise UserError(
            "this model has backbone weights that a run trained: "
            "restore its backbone first, with unipeft.detach(model)"
        )


def drop_origin(model: nn.Module) -> None:
    """Forget the origin of a model that is no longer the run's."""
    vars(model).pop(ATTRIBUTE, None)
