"""Every method in every family folds exactly, or says why not."""

from typing import Any

import pytest
import torch
from attached_models import METHODS
from tiny_config import configured
from tiny_families import CONFIGS, backbone

from unipeft_run.backbones.families import FAMILIES
from unipeft_run.deltas.attach import attach, find_deltas
from unipeft_run.deltas.fold import fold
from unipeft_run.deltas.slots import build_slots
from unipeft_run.errors import UserError

GATED = tuple(name for name, family in FAMILIES.items() if family.activation is None)
UNFOLDED = ("houlsby", "adapter_attn", "adapter_ffn", "parallel_attn", "pfeiffer", "compacter")
UNFOLDED += ("unipelt", "prompt", "parallel_attn_ffn")
PRE_NORM = ("mbart",)  # the official code's parallel adapter reads before the LayerNorm
WIDE = ("parallel_ffn", "scaled_parallel_ffn", "mam")
CELLS = [(family, method) for family in CONFIGS for method in METHODS]


def attached(family: str, method: str, *overrides: str) -> Any:
    words = ("task=sst2", f"method={method}", "scale=mini", "head=frozen", *overrides)
    config = configured(*words)
    model = backbone(family)
    attach(model, build_slots(config), config.unfreeze)
    torch.manual_seed(7)
    with torch.no_grad():
        for _, delta in find_deltas(model):
            for parameter in delta.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def is_missing(family: str, method: str) -> bool:
    """Return whether the family has nothing that the method trains."""
    if method == "prompt":
        return FAMILIES[family].prompt is None
    names = [name for name, _ in backbone(family).named_parameters()]
    return method == "bitfit" and not any(name.endswith("bias") for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), CELLS)
def test_it_folds_or_says_why_not(family: str, method: str) -> None:
    if is_missing(family, method):
        return
    model = attached(family, method).double()
    if is_refused(family, method):
        with pytest.raises(UserError, match="cannot fold"):
            fold(model)
        return
    folded = fold(model)  # compares the outputs
    left = {delta.site.representation for _, delta in find_deltas(folded)}
    assert left <= {"attn.heads"}


def is_refused(family: str, method: str) -> bool:
    """Return whether neither one weight nor further hidden units can hold the change."""
    if method in UNFOLDED:
        return True
    if method == "adaptformer":  # reads the residual stream: in post-norm families, the input
        table = FAMILIES[family]
        reads_other = table.ffn["ffn.up"].partition(" -> ")[0] != table.residual["ffn"]
        return reads_other or family in GATED
    return method in WIDE and (family in GATED or family in PRE_NORM)
