"""Hostile imports: one sentence, exit code 2, nothing executed, nothing overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_models import AUTO_MAP, change_json, write_pickle
from official_checkpoint import LORA, MAM, Files, lora_state, mam_state
from safetensors.torch import load_file, save_file
from tiny_fuzz import snapshot

from unipeft_run.commands import export_peft, import_official

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def lora(tmp_path: Path) -> Files:
    return Files(tmp_path, LORA, lora_state())


def refusal(files: Files, capsys: Capture, *extra: str) -> str:
    """Return the message of an import; assert that it is refused and writes nothing."""
    before = snapshot(files.folder)
    assert import_official.main([*files.arguments(), *extra]) == 2
    assert snapshot(files.folder) == before
    message = capsys.readouterr().err.strip()
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "holds no options"),
        (b"[]", "holds no options"),
        (b"null", "holds no options"),
        (b"7", "holds no options"),
        (b"lora", "holds no options"),
        (b"{3: lora}", "there is no key 3"),
        (b"{null: 1}", "there is no key None"),
        (b"{[1, 2]: 3}", "is damaged"),
        (b"{{a: 1}: 3}", "is damaged"),
        (b"attn_mode: {lora: {x: 1}}", "attn_mode=dict is unknown"),
        (b"attn_mode: 2020-01-01", "attn_mode=date is unknown"),
        (b"attn_mode: 2020-13-01", "is damaged"),
        (b"attn_mode: !!binary aGVsbG8=", "attn_mode=bytes is unknown"),
        (b"attn_mode: !!python/object/apply:os.system [true]", "is damaged"),
        (b"attn_bn: 0x", "attn_bn=0x: must be"),
        (b"attn_bn: -1", "attn_bn=-1: must be"),
        (b"attn_bn: 0", "attn_bn=0: must be a whole number from 1 to 1,000,000"),
        (b"attn_bn: " + b"9" * 400, "attn_bn=999"),
        (b"attn_bn: " + b"9" * 5000, "is damaged"),
        (b"ffn_adapter_scalar: " + b"9" * 400, "ffn_adapter_scalar=999"),
        (b"lora_alpha: .nan", "lora_alpha=nan: must be a number above 0"),
        (b"\xff\xfe\x00", "is damaged"),
        (b"[" * 20_000, "is damaged: nested too deeply"),
        (b"a" * (2**20 + 1), "is too large"),
        (
            b"a: &a [x,x,x,x,x,x,x,x,x]\nattn_mode: &b [*a,*a,*a,*a,*a]\n",
            "there is no key a",
        ),
        (
            b"attn_option: &a [x,x,x,x,x,x,x,x,x]\nattn_mode: &b [*a,*a,*a,*a,*a]\n",
            "attn_mode=list is unknown",
        ),
    ],
    ids=range(26),
)
def test_options_of_any_content_are_refused_in_a_sentence(
    lora: Files, content: bytes, sentence: str, capsys: Capture
) -> None:
    lora.options.write_bytes(content)
    message = refusal(lora, capsys)
    assert sentence in message and str(lora.options) in message
    assert len(message.splitlines()) == 1 and len(message) < 500


def test_options_that_are_not_a_file_are_refused(lora: Files, capsys: Capture) -> None:
    lora.options.unlink()
    assert "there is no file" in refusal(lora, capsys)
    lora.options.mkdir()
    assert "there is no file" in refusal(lora, capsys)


def test_a_byte_order_mark_is_skipped(lora: Files) -> None:
    lora.options.write_bytes(b"\xef\xbb\xbf" + lora.options.read_bytes())
    assert import_official.main([*lora.arguments(), "method=lora_attn"]) == 0


QUERY = "pretrained_model.roberta.encoder.layer.0.attention.self.query.ef_lora_A"
DENSE = "pretrained_model.roberta.encoder.layer.0.output.dense.weight"


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        (QUERY, lambda t: None, "has no tensor roberta.encoder.layer.0.attention.self.query.ef"),
        (QUERY, lambda t: t[:2], "is [2, 32]; the options and the configuration make it [4, 32]"),
        (QUERY, lambda t: t.T.contiguous(), "is [32, 4]"),
        (QUERY, lambda t: t.to(torch.int64), "is int64, not of a floating-point type"),
        (QUERY, lambda t: torch.tensor(1.0), "is []"),
        (QUERY, lambda t: torch.zeros(0, 32), "is [0, 32]"),
        (DENSE, lambda t: None, "has no tensor roberta.encoder.layer.0.output.dense.weight"),
        (DENSE, lambda t: t[:2], "is [2, 64]; the options and the configuration make it [32, 64]"),
        (DENSE, lambda t: t.to(torch.bool), "is bool, not of a floating-point type"),
        ("x.ef_lora_A", lambda t: torch.zeros(4, 4), "unexpected official tensor x.ef_lora"),
    ],
    ids=range(10),
)
def test_tensors_that_do_not_fit_are_named(
    lora: Files,
    name: str,
    change: Callable[[torch.Tensor], torch.Tensor | None],
    sentence: str,
    capsys: Capture,
) -> None:
    tensor = change(lora.state.get(name, torch.zeros(1)))
    lora.state.pop(name, None)
    lora.write_state(lora.state if tensor is None else {**lora.state, name: tensor})
    assert sentence in refusal(lora, capsys)


def test_escape_sequences_never_reach_the_terminal(lora: Files, capsys: Capture) -> None:
    lora.write_state({**lora.state, "\x1b]0;evil\x07.ef_lora_A": torch.zeros(4, 4)})
    assert "\\x1b]0;evil\\x07.ef_lora_A" in refusal(lora, capsys)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\xff" * 8 + b"{}", b"{}"])
def test_damaged_safetensors_are_named(lora: Files, content: bytes, capsys: Capture) -> None:
    (lora.checkpoint / "model.safetensors").write_bytes(content)
    assert "model.safetensors cannot be read" in refusal(lora, capsys)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"num_attention_heads": 7}, "num_attention_heads=7 does not divide the hidden size 32"),
        ({"hidden_size": -32}, "hidden_size=-32: must be a whole number from 1"),
        ({"model_type": "gpt3"}, "model_type=gpt3 is unknown"),
        ({"auto_map": AUTO_MAP}, "auto_map asks for code from the model folder"),
        ({"id2label": {str(i): str(i) for i in range(5)}}, "give task="),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "classifier.out_proj"),
    ],
    ids=range(6),
)
def test_an_impossible_model_configuration_is_refused(
    lora: Files, content: dict[str, Any], sentence: str, capsys: Capture
) -> None:
    change_json(lora.checkpoint / "config.json", content)
    assert sentence in refusal(lora, capsys)


def test_a_task_of_another_family_or_size_is_refused(lora: Files, capsys: Capture) -> None:
    message = refusal(lora, capsys, "task=xsum")
    assert "is a roberta model, but task=xsum has a bart backbone" in message
    assert "has 2 classes, but task=mnli has 3" in refusal(lora, capsys, "task=mnli")


def test_a_hub_backbone_of_other_shapes_is_refused(lora: Files, capsys: Capture) -> None:
    lora.overrides = [lora.overrides[0]]
    assert "roberta-base is not the checkpoint's backbone" in refusal(lora, capsys)


def test_a_local_backbone_of_another_depth_is_refused(lora: Files, capsys: Capture) -> None:
    deeper = {"num_hidden_layers": 3}
    change_json(lora.backbone / "config.json", deeper)
    file = lora.backbone / "model.safetensors"
    tensors = load_file(file)
    for name in [name for name in tensors if ".layer.1." in name]:
        tensors[name.replace(".layer.1.", ".layer.2.")] = tensors[name].clone()
    save_file(tensors, file)
    assert "roberta.encoder.layer.2" in refusal(lora, capsys)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt"])
def test_a_pickle_is_never_loaded(lora: Files, name: str, capsys: Capture) -> None:
    proof = lora.folder / "proof"
    (lora.checkpoint / "model.safetensors").unlink()
    write_pickle(lora.checkpoint / name, proof)
    given = lora.arguments()
    given[0] = str(lora.checkpoint / name)
    assert import_official.main(given) == 2
    assert "is a pickle, which can execute code" in capsys.readouterr().err
    assert not proof.exists() and not lora.run.exists()


def test_the_conversion_in_the_message_works(lora: Files, capsys: Capture) -> None:
    (lora.checkpoint / "model.safetensors").unlink()
    torch.save(lora.state, lora.checkpoint / "pytorch_model.bin")
    command = refusal(lora, capsys).splitlines()[1]
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    written = load_file(lora.checkpoint / "model.safetensors")
    assert written.keys() == lora.state.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in lora.state.items())


# ---- folders that are not ours


OWN = ("checkpoints/a", "predictions/b", "wandb/c", "metrics.json", "train.jsonl")


def write_own(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"mine": true}')


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize(
    "names",
    [OWN, ("config.yaml",), ("status.json",), ("config.yaml", "status.json"), (".hidden",)],
    ids=len,
)
def test_files_that_are_not_ours_are_never_removed(
    lora: Files, names: tuple[str, ...], force: list[str], capsys: Capture
) -> None:
    write_own(lora.run, *names)
    assert f"--out={lora.run} is neither empty nor a run folder" in refusal(lora, capsys, *force)


def test_the_current_folder_is_refused_as_target(
    lora: Files, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    write_own(lora.run, *OWN)
    monkeypatch.chdir(lora.run)
    before = snapshot(lora.folder)
    given = [word if word != str(lora.run) else "." for word in lora.arguments()]
    assert import_official.main(given) == 2
    assert snapshot(lora.folder) == before


def test_a_file_is_refused_as_target(lora: Files, capsys: Capture) -> None:
    lora.run.write_text("mine")
    assert "cannot be used: Not a directory" in refusal(lora, capsys, "--force")


def test_force_replaces_a_run_and_keeps_other_files(lora: Files) -> None:
    assert import_official.main([*lora.arguments(), "method=lora_attn"]) == 0
    write_own(lora.run, "notes.txt")
    assert import_official.main([*lora.arguments(), "method=lora_attn", "--force"]) == 0
    assert (lora.run / "notes.txt").exists()


def test_an_export_writes_to_an_empty_folder(lora: Files, capsys: Capture) -> None:
    assert import_official.main([*lora.arguments(), "method=lora_attn"]) == 0
    out = lora.folder / "adapter"
    given = [str(lora.run), "--out", str(out)]
    write_own(out, "adapter_config.json", "own.txt")
    for extra in ([], ["--force"]):
        assert export_peft.main([*given, *extra]) == 2
        assert "neither empty nor an exported adapter" in capsys.readouterr().err
    assert (out / "adapter_config.json").read_text() == '{"mine": true}'
    (out / "own.txt").unlink()
    assert export_peft.main([*given, "--force"]) == 2
    assert "that unipeft did not export" in capsys.readouterr().err
    (out / "adapter_config.json").unlink()
    assert export_peft.main(given) == 0
    assert export_peft.main(given) == 2
    assert "already holds an adapter" in capsys.readouterr().err
    assert export_peft.main([*given, "--force"]) == 0
    assert json.loads((out / "adapter_config.json").read_text())["peft_type"] == "LORA"
    assert (out / "adapter_model.safetensors").stat().st_mode == (lora.options.stat().st_mode)


def test_mam_with_sizes_of_other_tensors_is_named(tmp_path: Path, capsys: Capture) -> None:
    files = Files(tmp_path, {**MAM, "attn_bn": 32}, mam_state())
    assert "prompt_model.wte.weight is [3, 32]" in refusal(files, capsys)
