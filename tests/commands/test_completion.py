"""Completion: the words it offers, and a real bash that completes with them."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from made_runs import make_sst2_run
from tiny_shell import environment, install_script, present_commands, unipeft

from unipeft_run.commands.completion import SHELLS, main, script
from unipeft_run.commands.completions import OPTIONS, complete
from unipeft_run.commands.dispatch import COMMANDS, run
from unipeft_run.config.messages import options

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


@pytest.mark.parametrize("name", [name for name in present_commands() if name in OPTIONS])
def test_the_options_offered_are_those_of_the_help(name: str, capsys: Capture) -> None:
    assert run([name, "--help"]) == 0
    listed = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", capsys.readouterr().out))
    elsewhere = {"--multirun", "--resolve", "--out"}  # Hydra's, and those of report's figures
    assert set(OPTIONS[name]) - elsewhere <= listed


def test_an_extension_is_offered(tmp_path: Path) -> None:
    (tmp_path / "lab" / "form").mkdir(parents=True)
    (tmp_path / "lab" / "form" / "gate.yaml").touch()
    done = unipeft(tmp_path, "__complete", "train", "--config-dir", "lab", "form@ffn=ga")
    assert done.stdout.split() == ["form@ffn=gate"]


def test_an_answer_needs_little_cpu_time(tmp_path: Path) -> None:
    line = ("__complete", "train", "ffn.bo")
    unipeft(tmp_path, *line)  # caches the keys
    before = os.times()
    assert unipeft(tmp_path, *line).stdout == "ffn.bottleneck=\n"
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
