"""unipeft.save and unipeft.load: the delta alone, onto the backbone that it was trained on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from named_deltas import attach_perturbed, logits
from safetensors.torch import load_file, save_file
from tiny import SEQ2SEQ, backbone
from tiny_config import configured
from transformers import BartConfig, BartForConditionalGeneration

import unipeft
from unipeft_run.deltas.attach import attach, attach_library
from unipeft_run.deltas.build import delta_recipe, run_recipe, unfreeze_patterns
from unipeft_run.deltas.delta_file import save_delta
from unipeft_run.deltas.origin import set_origin
from unipeft_run.deltas.slots import build_slots
from unipeft_run.errors import UserError
from unipeft_run.interop.peft import import_peft


@pytest.mark.parametrize(
    "method, family",
    [
        ("mam", "bart"),
        ("mam", "mbart"),
        ("mam", "roberta"),
        ("prompt", "roberta"),
        ("bitfit", "bart"),
        ("full", "roberta"),
    ],
)
def test_a_saved_delta_gives_the_same_logits(method: str, family: str, tmp_path: Path) -> None:
    model, fresh = backbone(family), backbone(family)
    saved = attach_perturbed(model, method)
    expected = logits(model, family)
    assert unipeft.save(model, tmp_path / "a" / "delta") == tmp_path / "a" / "delta"
    assert sorted(f.name for f in (tmp_path / "a/delta").iterdir()) == [
        "delta.json",
        "delta.safetensors",
    ]
    stored = sum(t.numel() for t in load_file(tmp_path / "a/delta/delta.safetensors").values())
    assert stored == saved.stored
    loaded = unipeft.load(fresh, str(tmp_path / "a/delta"))
    assert (loaded.name, loaded.method, loaded.stored) == (method, method, saved.stored)
    torch.testing.assert_close(logits(fresh, family), expected, rtol=0, atol=1e-6)
    with unipeft.disabled(fresh):
        assert torch.equal(logits(fresh, family), logits(backbone(family), family))


def test_an_inactive_delta_is_saved_by_name(tmp_path: Path) -> None:
    model, fresh = backbone("roberta"), backbone("roberta")
    attach_perturbed(model, "bitfit", 1, name="de")
    expected = logits(model, "roberta")
    model.requires_grad_(False)  # as for inference
    attach_perturbed(model, "mam", 2, name="en", bottleneck=8)
    unipeft.save(model, tmp_path / "de", name="de")
    unipeft.save(model, tmp_path / "en")
    unipeft.load(fresh, tmp_path / "en")
    unipeft.load(fresh, tmp_path / "de", name="other")
    assert unipeft.active(fresh) == ["other"]
    assert torch.equal(logits(fresh, "roberta"), expected)
    unipeft.activate(model, ["de"])
    unipeft.activate(model, None)
    with pytest.raises(UserError, match="no delta is active; give name= one of de, en"):
        unipeft.save(model, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_delta_moves_between_precisions(dtype: torch.dtype, tmp_path: Path) -> None:
    model, fresh = backbone("bart"), backbone("bart").to(dtype)
    attach_perturbed(model, "mam", bottleneck=8)
    unipeft.save(model, tmp_path)
    unipeft.load(fresh, tmp_path)
    assert {p.dtype for p in fresh.parameters()} == {dtype}
    tolerance = 1e-4 if dtype == torch.float64 else 0.2
    difference = logits(fresh, "bart").float() - logits(model, "bart")
    assert float(difference.abs().max()) < tolerance
    unipeft.save(fresh, tmp_path)
    unipeft.load(backbone("bart"), tmp_path)


def test_the_delta_of_a_run_can_be_loaded(tmp_path: Path) -> None:
    config = configured("task=sst2", "method=mam", "scale=mini", "head=trained")
    model, fresh = backbone("roberta"), backbone("roberta")
    attach(model, build_slots(config, inference=True), unfreeze_patterns(config))
    folder = tmp_path / "mam" / "ab12cd34"
    folder.mkdir(parents=True)
    save_delta(model, folder, delta_recipe(config))
    loaded = unipeft.load(fresh, folder)
    assert (loaded.name, loaded.method) == ("ab12cd34", "mam")
    moved = folder.rename(tmp_path / "elsewhere")
    assert unipeft.load(backbone("roberta"), moved).method == "mam"
    (moved / "delta.json").write_text((moved / "delta.json").read_text().replace('"method"', '"m"'))
    earlier = moved.rename(folder)  # a run of an earlier version
    assert unipeft.load(backbone("roberta"), earlier).method == "mam"
    assert torch.equal(logits(fresh, "roberta"), logits(model, "roberta"))


@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_with_a_random_classifier_needs_load_run(recorded: bool, tmp_path: Path) -> None:
    config = configured("task=sst2", "method=mam", "scale=mini", "head=frozen")
    model = backbone("roberta")
    attach(model, build_slots(config, inference=True))
    save_delta(model, tmp_path, run_recipe(config, model) if recorded else delta_recipe(config))
    with pytest.raises(UserError, match=r"frozen at its random init.*use load_run"):
        unipeft.load(backbone("roberta"), tmp_path)


@pytest.mark.parametrize("read", [unipeft.load, import_peft])
def test_weights_that_a_run_trained_are_no_backbone(read: Any, tmp_path: Path) -> None:
    model = backbone("bart")
    set_origin(model, configured("task=xsum", "method=bitfit", "scale=mini"), "nowhere")
    with pytest.raises(UserError, match="weights that a run trained: restore its backbone first"):
        read(model, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mam", "bitfit", "peft/lora"])
def test_the_delta_of_a_run_refuses_another_backbone(method: str, tmp_path: Path) -> None:
    words = ["peft.config.r=2", "++peft.config.init_lora_weights=pissa"]
    is_library = method.startswith("peft/")
    config = configured(
        "task=sst2", f"method={method}", "scale=mini", "head=trained", *words[: 2 * is_library]
    )
    model = backbone("roberta")
    attach(model, build_slots(config, inference=True), unfreeze_patterns(config))
    if config.peft is not None:
        pytest.importorskip("peft")
        attach_library(model, config.peft)
    recipe = run_recipe(config, model)
    save_delta(model, tmp_path, recipe)
    assert {**recipe, "backbone": recipe["backbone"]["name"]} == {
        **delta_recipe(config),
        "backbone": config.backbone.name,
    }
    unipeft.load(backbone("roberta"), tmp_path, name="same")
    other = backbone("roberta", seed=1)
    with pytest.raises(UserError, match="differs; load those weights first"):
        unipeft.load(other, tmp_path)
    assert "_unipeft" not in vars(other)


def other_vocabulary() -> Any:
    return BartForConditionalGeneration(BartConfig(**{**SEQ2SEQ, "vocab_size": 97})).eval()


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: backbone("mbart"), "holds a delta for bart, but this model is mbart"),
        (other_vocabulary, "vocab_size=96, but this model has vocab_size=97"),
        (lambda: backbone("bart", seed=1), "for other weights.* differs; load those weights first"),
        (lambda: torch.nn.Linear(2, 2), "not a transformers model"),
    ],
)
def test_another_backbone_is_refused(
    build: Callable[[], Any], message: str, tmp_path: Path
) -> None:
    model = backbone("bart")
    unipeft.attach(model, "lora_attn", bottleneck=2)
    unipeft.save(model, tmp_path)
    other = build()
    with pytest.raises(UserError, match=message):
        unipeft.load(other, tmp_path)
    assert all(p.requires_grad for p in other.parameters())
    assert "_unipeft" not in vars(other)


def test_a_frozen_head_must_be_the_same(tmp_path: Path) -> None:
    model = backbone("roberta")
    unipeft.attach(model, "lora_attn", bottleneck=2, head="frozen")
    unipeft.save(model, tmp_path)
    unipeft.load(backbone("roberta"), tmp_path)
    other = backbone("roberta")
    with torch.no_grad():
        other.classifier.out_proj.weight.add_(1)
    with pytest.raises(UserError, match="attach with head='trained' to store the head"):
        unipeft.load(other, tmp_path)


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    recipe = json.loads((folder / "delta.json").read_text())
    change(recipe)
    (folder / "delta.json").write_text(json.dumps(recipe))


def rename_tensor(folder: Path) -> None:
    tensors = load_file(folder / "delta.safetensors")
    tensors["other"] = tensors.pop(min(tensors))
    save_file(tensors, folder / "delta.safetensors")
    edit(folder, lambda recipe: recipe.pop("sha256"))


SLOT = "attn"
DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no tensors": (lambda f: (f / "delta.safetensors").unlink(), "delta.safetensors is missing"),
    "no recipe": (lambda f: (f / "delta.json").unlink(), "delta.json is missing"),
    "no json": (lambda f: (f / "delta.json").write_text("{"), "not a JSON object"),
    "cut": (lambda f: (f / "delta.safetensors").write_bytes(b"x" * 9), "its checksum differs"),
    "other tensor": (rename_tensor, "the model has no other|is missing"),
    "no slots": (lambda f: edit(f, lambda r: r.pop("slots")), "it needs backbone, unfreeze and"),
    "slot": (lambda f: edit(f, lambda r: r["slots"].update(atn={})), "did you mean attn"),
    "class": (
        lambda f: edit(f, lambda r: r["slots"][SLOT]["form"].update(_target_="os.path.join")),
        r"names the class os.path.join; if you trust it, pass allow=\['os.path.join'\]",
    ),
    "keyword": (
        lambda f: edit(f, lambda r: r["slots"][SLOT]["form"].update(rank="many")),
        "attn.form.rank=many: must be a whole number",
    ),
    "size": (
        lambda f: edit(f, lambda r: r["slots"][SLOT]["form"].update(rank=3)),
        "shape",
    ),
    "insertion": (
        lambda f: edit(f, lambda r: r["slots"][SLOT].update(insertion="__class__")),
        "attn.insertion=__class__ is unknown",
    ),
    "weight": (
        lambda f: edit(f, lambda r: r["backbone"].update(fingerprint={"no.such": [1.0]})),
        "it has no no.such",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused(damage: str, tmp_path: Path) -> None:
    model, fresh = backbone("bart"), backbone("bart")
    unipeft.attach(model, "lora_attn", bottleneck=2)
    unipeft.save(model, tmp_path)
    change, message = DAMAGES[damage]
    change(tmp_path)
    with pytest.raises(UserError, match=message):
        unipeft.load(fresh, tmp_path)
    assert all(p.requires_grad for p in fresh.parameters())
    assert "_unipeft" not in vars(fresh)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    model = backbone("bart")
    unipeft.attach(model, "lora_attn", bottleneck=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is not a folder"):
        unipeft.save(model, tmp_path / "file")
    with pytest.raises(UserError, match="file/below cannot be written: Not a directory"):
        unipeft.save(model, tmp_path / "file" / "below")


def test_the_home_folder_may_be_written_as_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    model = backbone("bart")
    unipeft.attach(model, "lora_attn", bottleneck=2)
    assert unipeft.save(model, "~/saved") == tmp_path / "saved"
    assert unipeft.load(backbone("bart"), "~/saved").method == "lora_attn"


@pytest.mark.parametrize("acting", ["de", "full", None])
def test_a_delta_is_saved_with_the_backbone_of_that_time(
    acting: str | None, tmp_path: Path
) -> None:
    model, fresh = backbone("bart"), backbone("bart")
    attach_perturbed(model, "lora_attn", name="de", bottleneck=2)
    expected = logits(model, "bart")
    unipeft.activate(model, None)
    for each in (model, fresh):
        torch.manual_seed(5)
        each.resize_token_embeddings(100, mean_resizing=False)
    if acting == "full":
        attach_perturbed(model, "full")
    unipeft.activate(model, acting)
    unipeft.save(model, tmp_path, name="de")
    unipeft.load(fresh, tmp_path)
    torch.testing.assert_close(logits(fresh, "bart")[..., :96], expected)
    with pytest.raises(UserError, match="with vocab_size=100, but this model has vocab_size=96"):
        unipeft.load(backbone("bart"), tmp_path)
