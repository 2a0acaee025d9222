"""Paths on a command line, and what unipeft-eval is given: used as meant, or refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_cli import call
from tiny_files import write_sentiment

from unipeft_run import cli
from unipeft_run.commands.arguments import parse_overrides
from unipeft_run.config import (
    compose,
    implied_overrides,
    normalise_overrides,
    resolve,
    run_id,
)
from unipeft_run.errors import UserError

SST2 = ("task=sst2", "method=full", "scale=mini")


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("task.path=~/data", "task.path='~/data'"),
        ("task.path=2024", "task.path='2024'"),
        ("run=12e45678", "run='12e45678'"),
        ("run=true", "run='true'"),
        ("output=a b(1)=c", "output='a b(1)=c'"),
        ("task.path=a,~/b", "task.path=a,'~/b'"),
        ("+task.path=~", "+task.path='~'"),
        ("output=/home/jürgen/x", "output='/home/jürgen/x'"),
        ("task.text=größe,name", "task.text='größe',name"),
        ("tracking.wandb.name=prüfung", "tracking.wandb.name='prüfung'"),
    ],
)
def test_paths_are_text(word: str, quoted: str) -> None:
    assert normalise_overrides([word]) == [quoted]
    assert normalise_overrides([quoted]) == [quoted]


@pytest.mark.parametrize(
    "word",
    [
        "task.path=data/new", "output=out", "task.path=null", "task.path='a b'", "seed=1",
        "backbone.path=[1]", "run=${x}", "task.path=choice(a,b)", "unfreeze=[~a]", "output=",
    ],
)  # fmt: skip
def test_other_words_are_left_to_hydra(word: str) -> None:
    assert normalise_overrides([word]) == [word]


@pytest.mark.parametrize(
    ("word", "plain"),
    [
        ("method='parallel_ffn'", "method=parallel_ffn"),
        ('+scale="mini"', "scale=mini"),
        ("+hydra/launcher=joblib", "hydra/launcher=joblib"),
        ("method='mam','lora_ffn'", "method=mam,lora_ffn"),
        ("form@ffn='peft/x'", "form@ffn=peft/x"),
        ("hydra/sweeper='optuna'", "hydra/sweeper=optuna"),
        ("task.name='a'", "task.name='a'"),
        ("method='a b'", "method='a b'"),
        ("+ffn.scale=4", "ffn.scale=4"),
        ("++attn.bottleneck=4", "attn.bottleneck=4"),
        ("+ffn.form.rank=4", "+ffn.form.rank=4"),
    ],
)
def test_a_word_has_one_spelling(word: str, plain: str) -> None:
    assert normalise_overrides([word]) == [plain]


def test_a_quoted_choice_has_the_presets_of_the_plain_one() -> None:
    plain = "task=sst2", "method=parallel_ffn", "scale=mini"
    quoted = [f"{key}='{value}'" for key, _, value in (word.partition("=") for word in plain)]
    assert run_id(resolve(compose(quoted))) == run_id(resolve(compose(plain)))
    assert implied_overrides([*quoted, "optim='sgd'"]) == implied_overrides([*plain, "optim=sgd"])


@pytest.mark.parametrize("name", ["größe", "2024", "1e5", "a b(1)=c", "~/mine"])
def test_any_folder_can_hold_the_data(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = write_sentiment(tmp_path / name.removeprefix("~/"))
    assert resolve(compose([*SST2, f"task.path={name}"])).task.path == str(folder)


def test_a_home_that_does_not_exist_is_a_path(tmp_path: Path) -> None:
    path = resolve(compose([*SST2, "task.path=~nobody-of-this-name/x"])).task.path
    assert path is not None and path.endswith("/~nobody-of-this-name/x")


# ---- unipeft-eval


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("task.path=[1]", "task.path=[1]: must be text"),
        ("backbone.path={a: 1}", "must be text"),
        ("task.path=''", "task.path is empty"),
        ("allow=3", "allow=3: must be a list"),
        ("split=null", "split: must not be null"),
        ("split=[test]", "must be text"),
        ("run=null", "run: must not be null"),
        ("+foo=1", "there is no key foo"),
        ("+task.mini=x", "there is no key task.mini"),
        ("run=~nobody-of-this-name/x", "is not a run folder"),
    ],
)
def test_evaluation_refuses_what_it_cannot_use(
    word: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(cli.evaluate, monkeypatch, "run=nowhere", word) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


# ---- refusals that name the word


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("task=3", "task cannot be 3"),
        ("method=[mam]", "method cannot be [mam]"),
        ("optim=[a]", "optim cannot be [a]"),
        ("~task", "a run needs task="),
        ("unfreeze={a:1}", "unfreeze={a:1}: not a value of the kind"),
        ("hydra.searchpath=[nowhere]", "there is no folder nowhere"),
    ],
)
def test_a_wrong_group_value_names_its_key(word: str, sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        compose([*SST2, word])
    assert sentence in str(refusal.value)


@pytest.mark.parametrize("word", ["ffn.bottleneck=[8", "backbone.path=@x", "num_beams={a"])
def test_a_value_that_is_not_yaml_is_named(word: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(word)}: the value is not YAML"):
        parse_overrides([word])


def test_a_key_given_twice_and_then_empty_is_named() -> None:
    with pytest.raises(UserError, match="give task= one of"):
        compose([*SST2, "task="])


def test_a_flag_may_follow_the_overrides() -> None:
    """Runs in a subprocess, because Hydra reconfigures logging."""
    entry = "from unipeft_run.cli import train; train()"
    words = [sys.executable, "-c", entry, *SST2, "--info", "defaults"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "method/full" in done.stdout


@pytest.mark.parametrize("flag", [["--info", "x"], ["--cfg"], ["-c", "foo"], ["-cd", "nowhere"]])
def test_a_wrong_flag_is_one_line(
    flag: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(cli.train, monkeypatch, *SST2, *flag) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("flag", [["--info", "config"], ["--hydra-help"], ["--cfg", "job"]])
def test_a_flag_that_shows_one_configuration_runs_no_grid(
    flag: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "run_grid", pytest.fail)
    assert call(cli.train, monkeypatch, "-m", *SST2, "seed=1,2", *flag) == 2
    assert f"{flag[0]} shows a single configuration; leave out -m" in capsys.readouterr().err


def test_large_bounds_are_written_in_full() -> None:
    with pytest.raises(UserError, match=r"seed=4294967296: must be less than 4294967296$"):
        resolve(compose([*SST2, "seed=4294967296"]))
