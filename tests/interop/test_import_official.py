"""Import checkpoints of the official code as run folders that unipeft-eval evaluates."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from official_checkpoint import LAYERS, LORA, MAM, WIDTH, Files, lora_state, mam_state
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer

from unipeft_run import load_run
from unipeft_run.commands import export_peft, import_official
from unipeft_run.errors import UserError
from unipeft_run.interop.official import from_official
from unipeft_run.interop.options import complete_options, read_options


@pytest.fixture
def mam(tmp_path: Path) -> Files:
    return Files(tmp_path, MAM, mam_state())


def call(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, "-m", "unipeft_run", name, *arguments],
        env={**os.environ, "PYTHONPATH": paths, "UNIPEFT_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )


@torch.no_grad()
def by_hand(files: Files) -> dict[str, float]:
    """Return accuracy and loss of the official model on the test split, one sentence at a time."""
    model, tokenizer = files.model(), AutoTokenizer.from_pretrained(files.backbone)
    rows = [json.loads(line) for line in (files.data / "test.jsonl").read_text().splitlines()]
    right, loss = 0, 0.0
    for row in rows:
        given = tokenizer(row["sentence"], return_tensors="pt")
        logits = model(given["input_ids"], attention_mask=given["attention_mask"]).logits
        right += int(logits.argmax() == row["label"])
        loss += torch.nn.functional.cross_entropy(logits, torch.tensor([row["label"]])).item()
    return {"test/accuracy": 100 * right / len(rows), "test/loss": loss / len(rows)}


@pytest.mark.slow
def test_an_imported_checkpoint_can_be_evaluated(mam: Files) -> None:
    done = call("import-official", *mam.arguments(), folder=mam.folder)
    assert done.returncode == 0, done.stderr
    assert f"unipeft eval {mam.run}" in done.stdout
    assert json.loads((mam.run / "status.json").read_text())["state"] == "done"
    table = json.loads((mam.run / "parameters.json").read_text())
    assert table["stored"] == LAYERS * (2 * 3 * WIDTH + 2 * 4 * WIDTH + 4 + WIDTH)
    told = call("eval", f"run={mam.run}", folder=mam.folder)
    assert told.returncode == 0, told.stderr
    metrics = dict(line.split(" ") for line in told.stdout.splitlines())
    for name, expected in by_hand(mam).items():
        assert float(metrics[name]) == pytest.approx(expected, rel=1e-4), name


def test_the_imported_run_equals_the_official_model(mam: Files) -> None:
    assert import_official.main(mam.arguments()) == 0
    ids = torch.tensor([[0, 9, 8, 7, 2]])
    torch.testing.assert_close(load_run(mam.run)(ids).logits, mam.model()(ids).logits)


def test_an_imported_lora_exports_to_peft(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = Files(tmp_path, LORA, lora_state())
    assert import_official.main([*files.arguments(), "method=lora_attn"]) == 0
    assert export_peft.main([str(files.run), "--out", str(tmp_path / "peft")]) == 0
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert config["base_model_name_or_path"] == str(files.backbone)
    assert config["target_modules"] == ["query", "value"]


def test_exporting_a_prefix_is_refused(mam: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_official.main(mam.arguments()) == 0
    assert export_peft.main([str(mam.run), "--out", str(mam.folder / "peft")]) == 2
    assert "through the cache" in capsys.readouterr().err


def test_an_existing_run_needs_force(mam: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_official.main(mam.arguments()) == 0
    assert import_official.main(mam.arguments()) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert import_official.main([*mam.arguments(), "--force"]) == 0


def test_a_different_local_backbone_is_refused(
    mam: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    file = mam.backbone / "model.safetensors"
    tensors = load_file(file)
    tensors["roberta.encoder.layer.1.output.dense.weight"] += 0.01
    save_file(tensors, file, metadata={"format": "pt"})
    assert import_official.main(mam.arguments()) == 2
    assert "not the checkpoint's backbone: roberta.encoder.layer.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("prompt_model.wte.weight", "the checkpoint has no tensor prompt_model.wte.weight"),
        ("pretrained_model.roberta.embeddings.LayerNorm.bias", "has no tensor roberta.embeddings"),
    ],
)
def test_a_missing_tensor_is_named(
    mam: Files, missing: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mam.write_state({name: tensor for name, tensor in mam.state.items() if name != missing})
    assert import_official.main(mam.arguments()) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"attn_mdoe": "lora"}, "did you mean attn_mode"),
        ({"attn_mode": "lisa"}, "attn_mode=lisa is unknown"),
        ({"ffn_adapter_scalar": "four"}, "must be a number above 0, or learnable_scalar"),
        ({"ffn_bn": 3}, "the options and the configuration make it"),
        ({"ffn_bn": 5}, "ffn_bn=5: no tensor of the checkpoint has this size"),
        ({"ffn_bn": 0}, "ffn_bn=0: must be a whole number from 1 to 1,000,000"),
        ({"attn_bn": -3}, "attn_bn=-3: must be a whole number"),
        ({"attn_bn": 3.0}, r"attn_bn=3\.0: must be a whole number"),
        ({"attn_bn": True}, "attn_bn=True: must be a whole number"),
        ({"attn_bn": 10**30}, "must be a whole number from 1 to 1,000,000"),
        ({"mid_dim": "8"}, "mid_dim=8: must be a whole number"),
        ({"mid_dim": None}, "mid_dim=None: must be a whole number"),
        ({"prefix_dropout": 1.0}, r"prefix_dropout=1\.0: must be a number from 0 to below 1"),
        ({"lora_alpha": float("nan")}, "lora_alpha=nan: must be a number above 0"),
        ({"ffn_adapter_scalar": "0"}, "ffn_adapter_scalar=0: must be a number above 0"),
        ({"ffn_adapter_scalar": "inf"}, "ffn_adapter_scalar=inf: must be"),
        ({"ffn_adapter_scalar": [2]}, "ffn_adapter_scalar=list: must be"),
        ({"attn_mode": ["prefix"]}, "attn_mode=list is unknown"),
        ({"attn_mode": {"prefix": 1}}, "attn_mode=dict is unknown"),
        ({"unfreeze_params": 3}, "unfreeze_params=3: must be text"),
        ({3: "lora"}, "there is no key 3"),
        ({None: "lora"}, "there is no key None"),
    ],
)
def test_wrong_options_are_named(mam: Files, changed: dict[str, Any], sentence: str) -> None:
    config = AutoConfig.from_pretrained(mam.checkpoint)
    with pytest.raises(ValueError, match=sentence):
        from_official({**MAM, **changed}, config, mam.state)


def test_options_are_read_from_the_checkpoints_config(mam: Files) -> None:
    file = mam.checkpoint / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **MAM}))
    assert read_options(file) == complete_options(MAM)


@pytest.mark.parametrize("content", ["[1, 2]", "{", "attn_mode"])
def test_a_file_without_options_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text(content)
    with pytest.raises(UserError, match=r"options\.json"):
        read_options(tmp_path / "options.json")
