"""`unipeft.attach(model, "peft/dora")`: named deltas made of the PEFT library's modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tuners import backbone, inputs_of, train

import unipeft
from unipeft_run.errors import UserError

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(**inputs_of("roberta")).logits


def test_a_method_of_the_library_is_attached_switched_saved_and_loaded(tmp_path: Path) -> None:
    model = backbone("roberta")
    plain = logits(model)
    attached = unipeft.attach(model, "peft/dora", peft={"r": 4})
    assert attached.name == "peft-dora" and attached.method == "peft/dora"
    assert attached.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    train(model, inputs_of("roberta"))
    changed = logits(model)
    unipeft.save(model, tmp_path / "saved")
    unipeft.activate(model, None)
    assert torch.equal(logits(model), plain)
    assert model.state_dict().keys() == backbone("roberta").state_dict().keys()
    unipeft.attach(model, "bitfit")
    unipeft.activate(model, "peft-dora")
    assert torch.equal(logits(model), changed)
    other = backbone("roberta")
    loaded = unipeft.load(other, tmp_path / "saved")
    assert loaded.trained == attached.trained
    assert torch.equal(logits(other), changed)
    torch.testing.assert_close(logits(unipeft.fold(other)), changed, rtol=0, atol=1e-5)
    unipeft.detach(other)
    assert torch.equal(logits(other), plain)


def test_a_method_of_the_library_acts_alone() -> None:
    model = backbone("roberta")
    unipeft.attach(model, "peft/oft", peft={"oft_block_size": 8})
    unipeft.attach(model, "parallel_ffn")
    with pytest.raises(UserError, match="a method of the PEFT library cannot be combined"):
        unipeft.activate(model, ["peft-oft", "parallel_ffn"])


def test_a_wrong_field_changes_nothing() -> None:
    model = backbone("roberta")
    with pytest.raises(UserError, match=r"did you mean peft\.config\.r\?"):
        unipeft.attach(model, "peft/dora", peft={"rr": 4})
    assert model.state_dict().keys() == backbone("roberta").state_dict().keys()
