"""The backbone is as before once a method of the PEFT library that changed it is taken out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tuners import attached, backbone, inputs_of, train, tuner_of

from unipeft_run.deltas.attach import attach, attach_library, detach
from unipeft_run.deltas.delta_file import load_delta, save_delta
from unipeft_run.errors import UserError
from unipeft_run.interop.peft import export_peft
from unipeft_run.tuners.adapter import find_adapter

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings(  # of the library, in its own code
    "ignore::UserWarning:peft", "ignore:.*is_gradient_checkpointing"
)

CHANGES: list[tuple[str, dict[str, Any]]] = [
    *(("peft/lora", {"init_lora_weights": init}) for init in ("pissa", "pissa_niter_2", "olora")),
    *(("peft/lora", {"bias": bias}) for bias in ("all", "lora_only")),
    ("peft/boft", {"bias": "boft_only"}),
]


def trained(method: str, **changes: Any) -> Any:
    model = attached("roberta", method, **changes)
    train(model, inputs_of("roberta"))
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(**inputs_of("roberta")).logits


@pytest.mark.parametrize(("method", "changes"), CHANGES)
def test_the_backbone_is_restored_and_takes_the_delta_again(
    method: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    model = trained(method, **changes)
    wanted = logits(model)
    save_delta(model, tmp_path, {})
    detach(model)
    plain = backbone("roberta").state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    attach(model, {})
    torch.manual_seed(11)
    attach_library(model, tuner_of(method, **changes))
    load_delta(model, tmp_path)
    torch.testing.assert_close(logits(model), wanted, rtol=0, atol=1e-6)


def test_only_changed_weights_are_kept() -> None:
    def kept(**changes: Any) -> list[str]:
        adapter = find_adapter(attached("roberta", "peft/lora", ("classifier.*",), **changes))
        assert adapter is not None
        return sorted(adapter.originals)

    assert kept() == []
    weights = kept(init_lora_weights="olora")
    assert len(weights) == 4 and all(n.endswith(("query.weight", "value.weight")) for n in weights)
    assert weights == kept(init_lora_weights="olora", target_modules="null")  # the library's
    assert all(name.endswith("bias") for name in kept(bias="all"))
    assert not any(name.startswith("classifier") for name in kept(bias="all"))


def test_peft_gets_no_decomposition_that_it_would_draw_again(tmp_path: Path) -> None:
    model = attached("roberta", "peft/lora", init_lora_weights="pissa_niter_2")
    with pytest.raises(UserError, match=r"cannot export init_lora_weights=pissa_niter_2: .*delta"):
        export_peft(model, tmp_path / "out")
    export_peft(attached("roberta", "peft/lora", init_lora_weights="pissa"), tmp_path / "out")
