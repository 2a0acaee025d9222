"""Damaged and hostile PEFT folders: each is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hostile_models import change_json, write_pickle
from safetensors.torch import load_file, save_file

from unipeft_run.deltas.attach import attach
from unipeft_run.errors import UserError
from unipeft_run.interop.official import build_slots
from unipeft_run.interop.peft import CONFIG, TENSORS, export_peft, import_peft

LORA = {"attn_mode": "lora", "attn_option": "none", "attn_bn": 4}
DOWN = "base_model.model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tiny.backbone("bart")
    attach(model, build_slots(LORA))
    export_peft(model, tmp_path / "adapter")
    return tmp_path / "adapter"


def check_refusal(folder: Path, sentence: str) -> None:
    """Assert that the import is refused and leaves the backbone unchanged."""
    model = tiny.backbone("bart")
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    with pytest.raises(UserError, match=sentence) as refusal:
        import_peft(model, folder)
    assert len(str(refusal.value)) < 600
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before


def test_the_undamaged_folder_is_imported(folder: Path) -> None:
    import_peft(tiny.backbone("bart"), folder)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"peft_type": None}, "holds None; only LORA"),
        ({"peft_type": ["LORA"]}, "only LORA can be imported"),
        ({"lora_alpha": None}, "lora_alpha=None: must be a number above 0"),
        ({"lora_alpha": "8"}, "lora_alpha=8: must be a number above 0"),
        ({"lora_alpha": -1}, "lora_alpha=-1: must be"),
        ({"lora_dropout": 1.5}, r"lora_dropout=1\.5: must be a number from 0 to below 1"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern=.*: must be a mapping"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern q_proj=x: must be a number"),
        ({"alpha_pattern": {"q_proj(": 2}}, r"alpha_pattern q_proj\(: missing \)"),
        ({"alpha_pattern": {"(a*)*$": 2}}, "is too complex"),
        ({"alpha_pattern": {"a*" * 30: 2}}, "is too complex"),
        ({"alpha_pattern": {"a" * 300: 2}}, "is too complex"),
        ({"modules_to_save": "head"}, "modules_to_save=head: must be a list of names"),
        ({"bias": {"x": 1}}, "bias=.*has no counterpart"),
        ({"init_lora_weights": ["pissa"]}, "changes the backbone's weights"),
    ],
    ids=range(15),
)
def test_a_wrong_configuration_is_refused(
    folder: Path, content: dict[str, Any], sentence: str
) -> None:
    change_json(folder / CONFIG, content)
    check_refusal(folder, sentence)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 50_000])
def test_a_damaged_configuration_is_refused(folder: Path, content: bytes) -> None:
    (folder / CONFIG).write_bytes(content)
    check_refusal(folder, "adapter_config.json")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: None, "LoRA at .* cannot be imported"),
        (lambda t: torch.zeros(0, 32), r"the shapes \[0, 32\] and"),
        (lambda t: torch.tensor(1.0), r"the shapes \[\] and"),
        (lambda t: t[:2], r"the shapes \[2, 32\] and \[32, 4\]; this backbone needs \[r, 32\]"),
        (lambda t: torch.zeros(4, 16), r"the shapes \[4, 16\]"),
        (lambda t: t.to(torch.int8), "is int8; weights must be float32"),
    ],
    ids=range(6),
)
def test_wrong_tensors_are_refused(
    folder: Path, change: Callable[[torch.Tensor], torch.Tensor | None], sentence: str
) -> None:
    tensors = load_file(folder / TENSORS)
    changed = change(tensors.pop(DOWN))
    save_file(tensors if changed is None else {**tensors, DOWN: changed}, folder / TENSORS)
    check_refusal(folder, sentence)


def test_a_pickle_is_not_loaded(folder: Path) -> None:
    proof = folder.parent / "proof"
    (folder / TENSORS).unlink()
    write_pickle(folder / "adapter_model.bin", proof)
    check_refusal(folder, f"holds no {TENSORS}")
    write_pickle(folder / TENSORS, proof)
    check_refusal(folder, "cannot be read")
    assert not proof.exists()
