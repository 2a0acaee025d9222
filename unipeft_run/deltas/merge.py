"""Check whether deltas can be merged into a backbone that plain transformers loads.

Merging is stricter than folding: a folded parallel adapter widens the FFN, which the
backbone's config.json cannot express.
"""

from collections.abc import Container, Iterable

from unipeft_run.backbones.family import Family
from unipeft_run.deltas.delta import Delta
from unipeft_run.deltas.foldable import find_obstacle, find_weight
from unipeft_run.deltas.forms.bottleneck import Bottleneck
from unipeft_run.deltas.forms.memory import Memory


def find_merge_obstacle(
    deltas: Iterable[Delta], table: Family, parameters: Container[str]
) -> str | None:
    """Return the reason why one of `deltas` cannot be merged; None if all can.

    `parameters`: names of the backbone's parameters.
    """
    for delta in deltas:
        if reason := _find_obstacle(delta, table, parameters):
            return f"{delta.site.representation}: {reason}"
    return None


def _find_obstacle(delta: Delta, table: Family, parameters: Container[str]) -> str | None:
    if isinstance(delta.form, Memory):
        return "a prefix or a multi-head adapter changes attention, and no weight can hold it"
    if reason := find_obstacle(delta, table):
        return reason
    weight, form = find_weight(delta, table), delta.form
    if not weight:
        return "it has its own activation, which the architecture of the backbone does not have"
    has_bias = isinstance(form, Bottleneck) and form.up.bias is not None
    if has_bias and f"{weight.path}.bias" not in parameters:
        return "it has a bias, which the weight of the backbone does not have"
    return None
