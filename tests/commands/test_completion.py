"""Completion: the words it offers, and a real bash that completes with them."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser
from made_runs import make_sst2_run
from tiny_shell import environment, install_script, present_commands, unipeft

from unipeft_run.cli import FLAGS
from unipeft_run.commands.arguments import Parser
from unipeft_run.commands.completion import SHELLS, main, script
from unipeft_run.commands.completion_cache import _stamp
from unipeft_run.commands.completion_table import EVERYWHERE, OPTIONS
from unipeft_run.commands.completions import complete
from unipeft_run.commands.dispatch import COMMANDS, run
from unipeft_run.commands.evaluation import EVALUATION_OPTIONS
from unipeft_run.config.messages import options
from unipeft_run.extensions import extended_by

Capture = pytest.CaptureFixture[str]
SECONDS = 0.5  # of CPU, for an answer


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tr", ["train"]),
        ("import", ["import-official"]),
        ("train task=ss", ["task=sst2"]),
        ("train method=lora", ["method=lora_attn", "method=lora_ffn"]),
        ("train method=mam,lora", ["method=mam,lora_attn", "method=mam,lora_ffn"]),
        ("train form@attn=bottleneck_t", ["form@attn=bottleneck_tanh"]),
        ("train composition@f", ["composition@ffn="]),
        ("train ffn.bo", ["ffn.bottleneck="]),
        ("params attn.form.len", ["attn.form.length="]),
        ("train optim.schedule=p", ["optim.schedule=polynomial"]),
        ("train force=t", ["force=true"]),
        ("train --cfg j", ["job"]),
        ("train --mu", ["--multirun"]),
        ("eval --sp", ["--split"]),
        ("runs state=d", ["state=damaged", "state=diverged", "state=done"]),
        ("space ex", ["explain"]),
        ("completion z", ["zsh"]),
        ("score pre", ["predictions="]),
        ("score task=causal_lm mark", ["marker="]),
        ("score task=xsum task.", ["task.rouge_tokenizer="]),
        ("score metric=ch", ["metric=chrf", "metric=chrf++"]),
        ("export ab12 --format m", ["merged"]),
        ("predict ab12 format=j", ["format=jsonl"]),
        ("report --format l", ["latex"]),
        ("report comp", ["compare"]),
        ("report compare --m", ["--metric"]),
        ("report plan table6_x", ["table6_xsum"]),
        ("report --experiment table6_x", ["table6_xsum"]),
        ("train -m experiment=table6_x", ["experiment=table6_xsum"]),
        ("train -m hydra/launcher=s", ["hydra/launcher=submitit_slurm"]),
        ("train task=text2text sourc", ["source=", "source_language="]),
        ("train task=sst2 sourc", []),
        ("train hydr", ["hydra/launcher=", "hydra/sweeper/sampler=", "hydra/sweeper="]),
        ("new task mine --type c", ["causal", "classification"]),
        ("new backbone mine --family gp", ["gpt2"]),
        ("space list m", ["matrix"]),
        ("space solve budg", ["budget="]),
        ("runs --j", ["--json"]),
        ("trian x", []),
    ],
)
def test_words(line: str, offered: list[str]) -> None:
    assert complete(line.split()) == offered


def test_all_choices_of_a_group_are_offered() -> None:
    assert complete(["train", "method="]) == [f"method={name}" for name in options("method")]
    assert complete([]) == sorted(name for name, command in COMMANDS.items() if command.listed)


def test_ids_of_runs_are_offered(tmp_path: Path) -> None:
    run = make_sst2_run(tmp_path / "outputs", "done")
    for command in ("eval", "report", "runs", "params"):
        assert run.name in complete([command, ""])
    assert complete(["eval", run.name[:3]]) == [run.name]
    assert complete(["eval", f"run={run.name[:3]}"]) == [f"run={run.name}"]


class Parsed(BaseException):
    """Raised with the parser of a command in place of parsing; no bug of the command."""


@pytest.mark.parametrize("name", OPTIONS)
def test_the_options_and_values_offered_are_those_of_the_parser(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(parser: Parser, argv: Sequence[str]) -> None:
        raise Parsed(parser)

    monkeypatch.setattr(Parser, "parse", stop)
    if name in ("train", "eval"):
        parser = get_args_parser()
        flags = [*FLAGS, *(EVALUATION_OPTIONS if name == "eval" else ())]
        accepted = {flag: choices(parser, flag) for flag in flags}
    else:
        with pytest.raises(Parsed) as parsed:
            run(name.split())
        (parser,) = parsed.value.args
        flags = [flag for flag in parser._option_string_actions if flag.startswith("--")]
        accepted = {flag: choices(parser, flag) for flag in flags}
    offered = {flag: complete([*name.split(), flag, ""]) for flag in accepted}
    assert set(OPTIONS[name]) == set(accepted) - set(EVERYWHERE)
    assert {flag: offered[flag] for flag, values in accepted.items() if values} == {
        flag: sorted(values) for flag, values in accepted.items() if values
    }


def choices(parser: ArgumentParser, flag: str) -> Sequence[str]:
    """Return the values that a parser accepts for an option."""
    action = parser._option_string_actions.get(flag)
    return tuple(action.choices or ()) if action else ()


def test_every_command_has_an_entry() -> None:
    assert set(present_commands()) <= set(OPTIONS)


def test_an_extension_is_offered(tmp_path: Path) -> None:
    (tmp_path / "lab" / "form").mkdir(parents=True)
    (tmp_path / "lab" / "form" / "gate.yaml").touch()
    done = unipeft(tmp_path, "__complete", "train", "--config-dir", "lab", "form@ffn=ga")
    assert done.stdout.split() == ["form@ffn=gate"]
    with extended_by(["lab"]):
        before = _stamp()
        (tmp_path / "lab" / "form" / "gate.py").touch()
        assert _stamp() != before, "the cached keys are out of date"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("train ffn.bo", "ffn.bottleneck="),
        ("report plan table6_x", "table6_xsum"),
        ("new backbone mine --family gp", "gpt2"),
    ],
)
def test_an_answer_needs_little_cpu_time(line: str, answer: str, tmp_path: Path) -> None:
    words = ("__complete", *line.split())
    unipeft(tmp_path, *words)  # caches the keys
    before = os.times()
    assert unipeft(tmp_path, *words).stdout == f"{answer}\n"
    after = os.times()
    used = after.children_user + after.children_system
    assert used - before.children_user - before.children_system < SECONDS


# ---- shells


class Terminal:
    """An interactive bash in a terminal, with `unipeft` on its path."""

    def __init__(self, folder: Path) -> None:
        install_script(folder / "bin")
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.process, self.master = self._start(environment(folder, PATH=path, PS1="$ "), folder)

    @staticmethod
    def _start(env: dict[str, str], folder: Path) -> tuple[subprocess.Popen[bytes], int]:
        master, slave = pty.openpty()
        command = ["bash", "--noprofile", "--norc", "-i"]
        process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=folder,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        return process, master

    def type(self, keys: str, expected: str) -> str:
        """Type `keys`; return what the terminal shows once `expected` is in it."""
        os.write(self.master, keys.encode())
        shown, end = "", time.monotonic() + 60
        while expected not in shown and time.monotonic() < end:
            if select.select([self.master], [], [], 1)[0]:
                shown += os.read(self.master, 4096).decode(errors="replace")
        assert expected in shown, shown
        return shown

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def test_a_real_bash_completes(tmp_path: Path) -> None:
    assert main(["bash", "--install"]) == 0
    terminal = Terminal(tmp_path)
    try:
        terminal.type(". .bashrc; echo re''ady\n", "ready")
        for keys, word in {
            "unipeft tra\t": "unipeft train ",
            "unipeft train task=ss\t": "task=sst2 ",
            "unipeft train form@attn=bottleneck_t\t": "form@attn=bottleneck_tanh ",
            "unipeft train ffn.bott\t": "ffn.bottleneck=",
            "unipeft-params method=scaled\t": "method=scaled_parallel_ffn ",
        }.items():
            terminal.type(keys, word)
            terminal.type("\x15", "")  # clear the line
    finally:
        terminal.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_parse(shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    (tmp_path / "script").write_text(script(shell))
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_installing_twice_adds_one_line(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / ".bashrc").write_text("alias ll='ls -l'")
    assert main(["bash", "--install"]) == main(["bash", "--install"]) == 0
    first, second = (tmp_path / ".bashrc").read_text().splitlines()
    file = tmp_path / ".local/share/unipeft/completion.bash"
    assert first == "alias ll='ls -l'" and second.startswith(f'source "{file}"')
    assert file.read_text() == script("bash")
    assert main(["fish", "--install"]) == 0
    assert (tmp_path / ".config/fish/completions/unipeft.fish").read_text() == script("fish")


def test_an_unknown_shell_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert main([]) == 2
    assert "your shell is tcsh; choose from bash, zsh, fish" in capsys.readouterr().err
