"""The command `unipeft`: its table, one grammar for all commands, and runs by id."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from made_runs import make_sst2_run
from tiny_shell import ROOT, environment, present_commands, unipeft

from unipeft_run.commands.dispatch import COMMANDS, main, run
from unipeft_run.errors import UserError
from unipeft_run.runs.search import find_run

Capture = pytest.CaptureFixture[str]
HEAVY = {"torch", "transformers", "datasets", "wandb"}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two finished runs in ./outputs."""
    monkeypatch.chdir(tmp_path)
    return [make_sst2_run(tmp_path / "outputs", "done", f"seed={seed}") for seed in (1, 2)]


# ---- the table


def test_alone_it_lists_every_command_in_one_line(capsys: Capture) -> None:
    assert run([]) == run(["--help"]) == run(["help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, command in COMMANDS.items():
        line = f"  {name:<15}  {command.summary}"
        assert lines.count(line) == (3 if command.listed else 0)
        assert len(line) <= 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "there is no command trian; did you mean train?"),
        (["evl", "x"], "did you mean eval?"),
        (["zzz"], "choose from train, eval"),
        (["task=sst2", "method=mam"], "did you mean unipeft train task=sst2 ...?"),
        (["--cfg", "job"], "options follow the command"),
        (["train", "--config-dir"], "--config-dir needs a folder"),
        (["params", "--config-dir", "nowhere"], "nowhere: there is no such folder"),
    ],
)
def test_wrong_commands_are_one_sentence(words: list[str], message: str, capsys: Capture) -> None:
    assert run(words) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert message in err


@pytest.mark.parametrize("name", present_commands())
def test_every_command_has_help_and_version(name: str, capsys: Capture) -> None:
    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: unipeft {name}" in text and "--config-dir DIR" in text
    assert "unipeft-" not in text
    assert run([name, "--version"]) == 0
    assert capsys.readouterr().out.startswith("unipeft ")
    if name != "train":  # to which unknown flags are left
        assert run([name, "--hepl"]) == 2
        assert "did you mean --help?" in capsys.readouterr().err


def test_the_scripts_are_the_table() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    scripts = project["scripts"]
    assert set(scripts) >= {"unipeft", *(f"unipeft-{name}" for name in COMMANDS)}
    for target in set(scripts.values()):
        module, _, function = target.partition(":")
        assert getattr(import_module(module), function) is main


def test_an_alias_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/unipeft-space", "list", "input"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert "form@input=vectors" in capsys.readouterr().out


def test_the_list_and_a_refusal_import_nothing_heavy(tmp_path: Path) -> None:
    for words in ([], ["trian"], ["runs", "--stael"], ["completion", "bash"]):
        script = f"""
import sys
from unipeft_run.commands.dispatch import run
run({words!r})
print(sorted(set(sys.modules) & {{*{sorted(HEAVY)}, "hydra", "pydantic"}}), file=sys.stderr)
"""
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True,
            env=environment(tmp_path), check=True,
        )  # fmt: skip
        assert done.stderr.splitlines()[-1] == "[]", words


# ---- options and overrides are one grammar


@pytest.mark.parametrize("words", [["--format", "json"], ["--format=json"], ["format=json"]])
def test_an_option_is_also_a_key(words: list[str], runs: list[Path], capsys: Capture) -> None:
    assert run(["runs", *words, "seed=1"]) == 0
    assert [record["config"]["seed"] for record in json.loads(capsys.readouterr().out)] == [1]
    assert run(["params", "task=sst2", *words, "method=bitfit", "scale=mini"]) == 0
    assert json.loads(capsys.readouterr().out)["trained"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs", "--format", "jsno"], "format=jsno is unknown (did you mean json?)"),
        (["runs", "format="], "format=: no value given"),
        (["report", "outputs", "--formt", "csv"], "did you mean --format?"),
        (["eval", "--splt", "test"], "did you mean --split?"),
        (["train", "task=sst2", "--multrun"], "did you mean --multirun?"),
        (["export-peft", "nowhere", "--out", "x"], "nowhere is not a run folder"),
        (["space", "lst"], "did you mean list?"),
    ],
)
def test_wrong_options_name_the_nearest(
    words: list[str], message: str, runs: list[Path], capsys: Capture
) -> None:
    assert run(words) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1


# ---- runs by id


def test_a_run_is_named_by_the_start_of_its_id(runs: list[Path], capsys: Capture) -> None:
    first, second = sorted(runs)
    length = next(n for n in range(1, 9) if first.name[:n] != second.name[:n])
    here = Path("outputs") / "sst2" / "mam" / first.name
    for name in (first.name[:length], f"mam/{first.name[:length]}", f"sst2/mam/{first.name}"):
        assert find_run(name) == here
    assert find_run(str(first)) == first
    assert run(["runs", first.name[:length]]) == 0
    assert "1 run: 1 done" in capsys.readouterr().out
    assert run(["params", first.name, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["stored"] > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zz", "nor the id of a run in /.*/outputs; unipeft runs"),
        ("", "is not a run"),
        ("other/mam/{id}", "not a run"),
    ],
)
def test_a_name_that_fits_no_run(name: str, message: str, runs: list[Path]) -> None:
    with pytest.raises(UserError, match=message):
        find_run(name.format(id=runs[0].name))


def test_an_ambiguous_name_lists_the_runs(tmp_path: Path) -> None:
    for run_id in ("ab12cd34", "ab56cd34"):
        (tmp_path / "outputs" / "sst2" / "mam" / run_id).mkdir(parents=True)
        (tmp_path / "outputs" / "sst2" / "mam" / run_id / "config.yaml").touch()
    with pytest.raises(UserError, match=r"ab matches several runs: .*ab12.*ab56"):
        find_run("ab", tmp_path / "outputs")
    copy = tmp_path / "outputs" / "sst2" / "mam" / "ab12cd34-copy"
    copy.mkdir()
    (copy / "config.yaml").touch()
    assert find_run("mam/ab12cd34", tmp_path / "outputs").name == "ab12cd34"
    with pytest.raises(UserError, match="did you mean ab12cd34"):
        find_run("ab12cd35", tmp_path / "outputs")


def test_eval_takes_runs_by_name(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    seen: list[tuple[Path, str]] = []

    def evaluate(folder: Path, split: str, **given: object) -> dict[str, float]:
        seen.append((folder, split))
        assert given["allow"] == ("yours.", "mine.")
        return {"accuracy": 87.25}

    monkeypatch.setattr("unipeft_run.run.evaluate", evaluate)
    options = ["--split", "validation", "--allow", "mine.", "allow=[yours.]"]
    name = runs[0].name
    assert run(["eval", name, *options, "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["validation/accuracy"] == 87.25 and printed["run"].endswith(name)
    assert run(["eval", name, str(runs[1]), *options]) == 0
    assert [(folder.name, split) for folder, split in seen] == [
        (folder.name, "validation") for folder in (runs[0], *runs)
    ]
    assert capsys.readouterr().out.count("done") == 2


def test_an_interrupt_and_a_refusal_have_their_exit_codes(tmp_path: Path) -> None:
    done = unipeft(tmp_path, "train", "task=sst", "method=mam")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean sst2?" in done.stderr
