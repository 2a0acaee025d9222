"""Exports: plain transformers gives the run's logits and texts; a delta folder loads itself."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from finished_runs import row
from safetensors.torch import load_file
from tiny_config import configured

import unipeft
import unipeft_run
from unipeft_run.commands import export
from unipeft_run.data.new_inputs import encode_inputs, input_columns
from unipeft_run.evaluation.generation import generate

Finished = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
TEXTS = {
    "sst2": ([row("sst2", n)["sentence"] for n in range(5)],),
    "mnli": (
        [row("mnli", n)["premise"] for n in range(5)],
        [row("mnli", n)["hypothesis"] for n in range(5)],
    ),
    "xsum": ([row("xsum", n)["document"] for n in range(5)],),
    "wmt16_en_ro": ([row("wmt16_en_ro", n)["translation"]["en"] for n in range(5)],),
}
TODAY = ("evaluation.decoding.rules=transformers",)
MERGED = {
    "xsum": ("method=lora_ffn", *TODAY),
    "wmt16_en_ro": ("method=lora_attn", *TODAY),
    "sst2": ("method=bitfit",),
    "mnli": ("method=lora_attn",),
}
# run in a process that has transformers only
PLAIN = """
import json, sys
import torch, transformers
results = {}
for name, folder, texts in json.loads(sys.argv[1]):
    is_class = name in ("sst2", "mnli")
    auto = "AutoModelForSequenceClassification" if is_class else "AutoModelForSeq2SeqLM"
    model = getattr(transformers, auto).from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(*texts, truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        if is_class:
            logits = model(**batch).logits
            labels = [model.config.id2label[n] for n in logits.argmax(-1).tolist()]
            results[name] = {"logits": logits.tolist(), "predictions": labels}
        else:
            tokens = model.generate(**batch)
            texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
            start = torch.full((len(texts), 1), 2)
            logits = model(**batch, decoder_input_ids=start).logits
            results[name] = {"logits": logits.tolist(), "tokens": tokens.tolist(),
                             "predictions": [text.strip() for text in texts]}
assert not [name for name in sys.modules if "unipeft" in name]
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    for task, overrides in MERGED.items():
        run = str(finished(task, *overrides))
        assert export.main([run, "--out", str(folder / task), "--format", "merged"]) == 0
    return {task: folder / task for task in MERGED}


@pytest.mark.slow
def test_plain_transformers_gives_the_run_s_logits_and_texts(
    exported: dict[str, Path], finished: Finished
) -> None:
    jobs = [(task, str(folder), TEXTS[task]) for task, folder in exported.items()]
    words = [sys.executable, "-c", PLAIN, json.dumps(jobs)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    for task, overrides in MERGED.items():
        run = unipeft_run.load_run(finished(task, *overrides), device="cpu")
        inputs = list(zip(*TEXTS[task], strict=True))
        assert results[task]["predictions"] == run.predict(inputs), task
        predictor = run.predictor()
        columns = dict(zip(input_columns(run.task), TEXTS[task], strict=True))
        batch = predictor.collator.pad_sources(encode_inputs(run.task, columns, run.tokenizer))
        more = {}
        if predictor.generation is not None:
            tokens = generate(run.model, **batch, decoding=predictor.generation)
            assert tokens.tolist() == results[task]["tokens"], task
            more = {"decoder_input_ids": torch.full((5, 1), 2)}
        with torch.no_grad():
            logits = run.model(**batch, **more).logits
        torch.testing.assert_close(
            logits, torch.tensor(results[task]["logits"]), atol=1e-4, rtol=1e-4
        )


def test_a_merged_folder_holds_the_names_and_settings(exported: dict[str, Path]) -> None:
    config = json.loads((exported["mnli"] / "config.json").read_text())
    assert config["id2label"] == {"0": "entailment", "1": "neutral", "2": "contradiction"}
    generation = json.loads((exported["xsum"] / "generation_config.json").read_text())
    assert (generation["num_beams"], generation["max_length"]) == (3, 12)
    tokenizer = json.loads((exported["xsum"] / "tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == 40
    card = (exported["xsum"] / "README.md").read_text()
    assert "AutoModelForSeq2SeqLM" in card and "| loss | 0.2500 |" in card


def test_a_delta_folder_loads_itself_wherever_it_is(
    finished: Finished, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished("mnli", "method=mam")
    inputs = list(zip(*TEXTS["mnli"], strict=True))
    expected = unipeft_run.load_run(folder, device="cpu").predict(inputs, probabilities=True)
    assert export.main([str(folder), "--out", str(tmp_path / "first")]) == 0
    assert "delta, python" in capsys.readouterr().out
    shutil.move(tmp_path / "first", tmp_path / "moved")
    here = str(folder.parents[3])
    for file in (tmp_path / "moved").glob("*.*"):
        assert here.encode() not in file.read_bytes(), f"{file} names a folder of this machine"
    again = unipeft_run.load_run(tmp_path / "moved", device="cpu")
    found = again.predict(inputs, probabilities=True)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-6)
    monkeypatch.setattr(sys, "argv", ["load.py", *inputs[0], *inputs[1]])
    runpy.run_path(str(tmp_path / "moved" / "load.py"), run_name="__main__")
    assert capsys.readouterr().out.split() == [expected[0].label, expected[1].label]


def test_a_delta_folder_holds_the_backbone_as_it_was_before_pissa(
    finished: Finished, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    folder = finished("sst2", "method=peft/lora", "peft.config.init_lora_weights=pissa_niter_2")
    expected = unipeft_run.load_run(folder, device="cpu").predict(
        *TEXTS["sst2"], probabilities=True
    )
    assert export.main([str(folder), "--out", str(tmp_path / "out"), "--format", "delta"]) == 0
    again = unipeft_run.load_run(tmp_path / "out", device="cpu")
    for ours, theirs in zip(
        again.predict(*TEXTS["sst2"], probabilities=True), expected, strict=True
    ):
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-6)


@pytest.mark.parametrize("method", ["bitfit", "full", "lora_attn"])
def test_the_plain_backbone_of_a_run_is_exported_and_restored(
    method: str, finished: Finished, tmp_path: Path
) -> None:
    folder = finished("sst2", f"method={method}")
    assert export.main([str(folder), "--out", str(tmp_path / "out"), "--format", "delta"]) == 0
    run, again = (unipeft_run.load_run(path, device="cpu") for path in (folder, tmp_path / "out"))
    plain = load_file(Path(run.backbone) / "model.safetensors")
    exported = load_file(tmp_path / "out" / "backbone" / "model.safetensors")
    trained = dict(again.model.named_parameters())
    assert all(torch.equal(trained[name], p) for name, p in run.model.named_parameters())
    state = torch.random.get_rng_state()
    unipeft.detach(run.model)
    assert torch.equal(torch.random.get_rng_state(), state)
    restored = run.model.state_dict()
    assert not any(p.requires_grad for p in run.model.parameters())
    for name, value in exported.items():
        assert torch.equal(restored[name], value), name
        if value.shape == plain[name].shape:  # the classifier is new
            assert torch.equal(value, plain[name]), name


@pytest.mark.parametrize(
    ("task", "words", "kind"),
    [
        ("sst2", "method=mam", "delta"),
        ("sst2", "method=parallel_ffn", "delta"),  # folds, but not into RoBERTa's own architecture
        ("sst2", "method=houlsby", "delta"),
        ("sst2", "method=prompt", "delta"),
        ("sst2", "method=full", "merged"),
        ("xsum", "method=lora_ffn", "merged"),
        ("sst2", "method=lora_attn representation@attn=attn_output", "delta"),  # several weights
    ],
)
def test_auto_merges_where_transformers_can_express_the_result(
    task: str, words: str, kind: str
) -> None:
    from unipeft_run.inference.export import choose_kind

    config = configured(f"task={task}", *words.split(), "scale=mini")
    assert choose_kind(config, "auto") == kind


def test_what_cannot_be_exported_is_refused_with_the_reason(
    finished: Finished, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No weight is loaded for a refusal."""
    monkeypatch.setattr("unipeft_run.inference.export.load_stored", None)
    run, out = str(finished("sst2", "method=mam")), str(tmp_path / "out")
    assert export.main([run, "--out", out, "--format", "merged"]) == 2
    assert "cannot merge attn.heads: a prefix" in capsys.readouterr().err
    assert export.main([run, "--out", out, "--format", "peft"]) == 2
    assert "cannot export attn.heads: PEFT passes prefixes" in capsys.readouterr().err
    assert export.main([run, "--out", out, "backbone.pth=x"]) == 2
    assert "did you mean backbone.path?" in capsys.readouterr().err
    assert export.main([run, "--out", out, "--format", "merge"]) == 2
    assert "format=merge is unknown (did you mean merged?)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_is_replaced_only_by_force_and_only_if_it_is_an_export(
    exported: dict[str, Path], finished: Finished, tmp_path: Path, capsys: Capture
) -> None:
    out = Path(shutil.copytree(exported["sst2"], tmp_path / "out"))
    words = [str(finished("sst2", "method=mam")), "--out", str(out)]
    assert export.main(words) == 2
    assert (
        "already holds an adapter or model; name another --out, or add --force"
        in capsys.readouterr().err
    )
    (out / "notes.txt").write_text("mine")
    assert export.main([*words, "--force"]) == 2
    assert "it holds notes.txt" in capsys.readouterr().err
    (out / "notes.txt").unlink()
    assert export.main([*words, "--force"]) == 0
    assert (out / "load.py").is_file() and not (out / "model.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_of_local_data_does_not_fall_back_to_other_data(
    finished: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert export.main([str(finished("sst2", "method=mam", "scale=mini")), "--out", str(out)]) == 0
    task = yaml.safe_load((out / "config.yaml").read_text())["task"]
    assert task["path"] is task["hub"] is task["mini"] is None
