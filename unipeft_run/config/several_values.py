"""Refuse several values, as in seed=1,2, where one is expected."""

from __future__ import annotations

import re

from unipeft_run.config.messages import SeveralRuns, shorten
from unipeft_run.config.schema import SLOTS
from unipeft_run.errors import UserError

SEVERAL = re.compile(  # Hydra's errors
    r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)'(?:\n| requires --multirun)",
    re.DOTALL,
)
LISTS = (  # keys that take [a,b] only
    *("unfreeze", "optim.betas"),
    *(
        f"{slot}.representation.{key}"
        for slot in SLOTS
        for key in ("sites", "stacks", "attentions", "layers")
    ),
)
LISTS_OR_TEXT = ("task.metric", "task.text", "task.labels", "tracking.wandb.tags", "allow")


def explain_several_values(error: Exception) -> UserError | None:
    """Explain Hydra's error about several values; None for any other error."""
    found = SEVERAL.search(str(error))
    if found is None:
        return None
    key, _, values = found[1].lstrip("+").partition("=")
    if key in LISTS:
        return UserError(f"{shorten(found[1])}: must be a list, as in {key}=[{values}]")
    several = f"{shorten(found[1])} names several values"
    if key in LISTS_OR_TEXT:
        several += f"; write {key}=[{values}] for a list"
    return SeveralRuns(several)
