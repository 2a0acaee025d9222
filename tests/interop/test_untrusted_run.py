"""Run folders are data: loading and evaluating one executes nothing that was planted in it."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hostile_models import AUTO_MAP, HostileModel, write_pickle
from official_checkpoint import LORA, Files, lora_state
from sampling import sampled
from tiny_cli import call

from unipeft_run import cli, load_run
from unipeft_run.commands import import_official, runs
from unipeft_run.config import load, plan_config
from unipeft_run.data.tasks.hub import load_hub
from unipeft_run.errors import UserError

Capture = pytest.CaptureFixture[str]
Change = Callable[[dict[str, Any]], None]


class Run:
    """A finished run, and a hostile model folder that it can name."""

    def __init__(self, folder: Path) -> None:
        self.files = Files(folder, LORA, lora_state())
        overrides = ("method=lora_attn", "evaluation.batch_size=4")
        assert import_official.main([*self.files.arguments(), *overrides]) == 0
        self.folder = self.files.run
        self.hostile = HostileModel(folder / "hostile")

    def change(self, change: Change) -> None:
        file = self.folder / "config.yaml"
        config = yaml.safe_load(file.read_text())
        change(config)
        file.write_text(yaml.safe_dump(config))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return Run(tmp_path / "outputs" / "sst2" / "lora_attn")


def trusting(run: Run) -> None:
    """Plant trust_remote_code in the run, and code in its model folder."""
    run.hostile.change("config.json", auto_map=AUTO_MAP)
    run.change(
        lambda c: c["backbone"].update(
            path=str(run.hostile.folder), config={"trust_remote_code": True}
        )
    )


def setting(run: Run) -> None:
    run.change(lambda c: c["backbone"].update(config={"trust_remote_code": True}))


def mapped(run: Run) -> None:
    run.hostile.change("config.json", auto_map=AUTO_MAP)
    run.change(lambda c: c["backbone"].update(path=str(run.hostile.folder)))


def mapped_tokenizer(run: Run) -> None:
    run.hostile.change("tokenizer_config.json", auto_map=AUTO_MAP)
    run.change(lambda c: c["backbone"].update(path=str(run.hostile.folder)))


def pickled_backbone(run: Run) -> None:
    run.hostile.pickle_weights()
    run.change(lambda c: c["backbone"].update(path=str(run.hostile.folder)))


def pickled_delta(run: Run) -> None:
    (run.folder / "delta.json").write_text("{}")
    write_pickle(run.folder / "delta.safetensors", run.hostile.proof)


def target(run: Run) -> None:
    run.change(lambda c: c["attn"]["form"].update(_target_="pathlib.Path.touch"))


def nested_target(run: Run) -> None:
    evil = {"_target_": "pathlib.Path", "_args_": [str(run.hostile.proof)]}
    run.change(lambda c: c["attn"]["form"].update(rank=evil))


def own_class(run: Run) -> None:
    """Plant a class of this package that is neither a form nor a composition."""
    evil = {"_target_": "unipeft_run.runs.folder.RunFolder", "path": str(run.hostile.proof)}
    run.change(lambda c: c["attn"].update(composition=evil))


def task_target(run: Run) -> None:
    run.change(lambda c: c["task"].update(_target_="evil.Task"))


def interpolation(run: Run) -> None:
    run.change(lambda c: c["task"].update(path="${oc.env:HOME}"))


def yaml_tag(run: Run) -> None:
    with (run.folder / "config.yaml").open("a") as file:
        file.write(f"evil: !!python/object/apply:pathlib.Path.touch [{run.hostile.proof}]\n")


PLANTED: dict[Callable[[Run], None], str] = {
    trusting: "there is no key backbone.config.trust_remote_code",
    setting: "there is no key backbone.config.trust_remote_code",
    mapped: "auto_map asks for code",
    mapped_tokenizer: "auto_map asks for code",
    pickled_backbone: "is a pickle",
    pickled_delta: "is damaged",
    target: "pathlib.Path.touch",
    nested_target: "pathlib.Path",
    own_class: "unipeft_run.runs.folder.RunFolder",
    task_target: "evil.Task",
    interpolation: "interpolation",
    yaml_tag: "damaged",
}


@pytest.mark.parametrize(
    "plant", sampled(((plant,) for plant in PLANTED), 3), ids=lambda plant: plant.__name__
)
def test_nothing_planted_is_executed(
    run: Run, plant: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    load_run(run.folder)
    plant(run)
    if plant is not mapped_tokenizer:  # load_run needs no tokenizer
        with pytest.raises(UserError, match=PLANTED[plant]):
            load_run(run.folder)
    capsys.readouterr()
    assert call(cli.evaluate, monkeypatch, f"run={run.folder}") == 2
    assert PLANTED[plant] in capsys.readouterr().err
    assert not run.hostile.was_executed


@pytest.mark.slow
@pytest.mark.parametrize("plant", [trusting, setting, mapped, mapped_tokenizer, pickled_backbone])
def test_retrying_executes_nothing(
    run: Run, plant: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    plant(run)
    (run.folder / "status.json").write_text('{"state": "failed", "step": 0, "heartbeat": "x"}')
    (run.folder / "delta.safetensors").unlink()
    if plant not in (trusting, setting):  # their configuration cannot be read
        config = load(run.folder).model_copy(update={"output": "outputs"})
        run.folder.rename(plan_config(config).folder)
    assert runs.main(["outputs", "--retry-failed"]) != 0
    told = capsys.readouterr()
    assert PLANTED[plant] in " ".join((told.out + told.err).split())
    assert not run.hostile.was_executed


def test_a_copied_run_says_which_key_to_change(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    moved = shutil.move(run.files.backbone, run.files.folder / "elsewhere")
    assert call(cli.evaluate, monkeypatch, f"run={run.folder}") == 2
    message = capsys.readouterr().err
    assert f"backbone.path={run.files.backbone}: there is no such folder" in message
    assert "backbone: path: in config.yaml" in message
    run.change(lambda c: c["backbone"].update(path=str(moved)))
    assert call(cli.evaluate, monkeypatch, f"run={run.folder}") == 0


def test_a_data_set_with_a_script_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, proof = tmp_path / "evil", tmp_path / "proof"
    folder.mkdir()
    (folder / "evil.py").write_text(f"from pathlib import Path; Path({str(proof)!r}).touch()")
    (folder / "train.pkl").write_bytes(pickle.dumps([1]))
    monkeypatch.setenv("HF_DATASETS_TRUST_REMOTE_CODE", "1")
    with pytest.raises(UserError):
        load_hub("sst2", path=str(folder))
    assert not proof.exists()


def test_expressions_in_data_stay_text(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    file = run.files.data / "test.jsonl"
    lines = file.read_text().splitlines()
    lines[0] = lines[0].replace("a ", "${oc.env:HOME} {{ evil }} !!python/name:os.system ", 1)
    file.write_text("\n".join(lines))
    assert call(cli.evaluate, monkeypatch, f"run={run.folder}") == 0
