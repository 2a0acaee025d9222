"""unipeft.load imports a form of the user only if it is trusted."""

from pathlib import Path

import pytest
import torch
from named_deltas import logits
from tiny import backbone

import unipeft
from unipeft_run.errors import UserError
from unipeft_run.extensions import extended_by

FORM = """
import torch
from unipeft_run.deltas.forms.base import Form

class Gain(Form):
    def __init__(self, site, *, start):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.full((site.width_out,), start))

    def forward(self, u):
        return self.gain * u
"""


def test_a_form_of_the_user_is_attached_and_loaded_if_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_library_forms.py").write_text(FORM)
    monkeypatch.syspath_prepend(tmp_path)
    model, fresh = backbone("roberta"), backbone("roberta")
    form = {"_target_": "my_library_forms.Gain", "start": 0.5}
    axes = {"insertion": "sequential", "representation": "ffn", "composition": "add"}
    attached = unipeft.attach(model, name="gain", ffn={"form": form, **axes}, head="frozen")
    assert attached.stored == 2 * 32
    unipeft.save(model, tmp_path / "gain")
    with pytest.raises(UserError, match=r"allow=\['my_library_forms.Gain'\]"):
        unipeft.load(fresh, tmp_path / "gain")
    unipeft.load(fresh, tmp_path / "gain", allow=["my_library_forms."])
    assert torch.equal(logits(fresh, "roberta"), logits(model, "roberta"))


def test_a_form_of_an_extension_folder_is_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "my_extension_forms"
    (folder / "form").mkdir(parents=True)
    (folder / "form" / "gain.py").write_text(FORM)
    model = backbone("roberta")
    form = {"_target_": "my_extension_forms.form.gain.Gain", "start": 0.5}
    axes = {"insertion": "sequential", "representation": "ffn", "composition": "add"}
    with extended_by([str(folder)]):
        unipeft.attach(model, name="gain", ffn={"form": form, **axes}, head="frozen")
        unipeft.save(model, tmp_path / "gain")
        unipeft.load(backbone("roberta"), tmp_path / "gain")
    with pytest.raises(UserError, match="if you trust it, pass allow="):
        unipeft.load(backbone("roberta"), tmp_path / "gain")
