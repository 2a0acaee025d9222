"""Wrong command lines give one to three lines on stderr and exit code 2, fast, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_files import write_sentiment

ROOT = Path(__file__).parents[2]
SST2 = "task=sst2 method=mam scale=mini"
HEAVY = ("torch", "transformers", "datasets", "accelerate", "wandb")
SECONDS = 2.0  # of CPU: on a quiet machine, half of it

WRONG = {
    # a task
    "train task=sst method=mam": "task=sst is unknown (did you mean sst2?)",
    "train task=null method=mam": "give task= one of arc_challenge, boolq",
    "train method=mam": "give task= one of arc_challenge, boolq",
    # a method
    "train task=sst2 method=mamm": "did you mean mam?",
    "train task=sst2": "give method= one of adapter_attn",
    "train -m task=sst2 method=mam,lora": "did you mean lora_attn or lora_ffn?",
    # another choice
    f"train {SST2} scale=small": "choose from mini, paper",
    f"train {SST2} backbone=bart_lrge": "did you mean bart_large?",
    f"train {SST2} backbone=bart_large": "but backbone bart_large is of type seq2seq",
    f"train {SST2} precision=fp8": "choose from fp32, bf16, fp16, auto",
    f"train {SST2} debug=small --cfg job": "debug=small is unknown",
    f"train {SST2} hydra/launcher=jobli -m": "pip install 'unipeft[joblib]'",
    # a key
    "train taks=sst2 method=mam": "did you mean task",
    f"train {SST2} recipe.max_stps=3": "did you mean recipe.max_steps?",
    f"train {SST2} lr=1e-3": "did you mean optim.lr?",
    f"train {SST2} +lr=1e-3": "there is no key lr",
    f"train {SST2} +seed=3": "leave out the + before it",
    f"train {SST2} ~seeed": "did you mean seed?",
    f"train {SST2} composition@fnn=add": "did you mean composition@ffn",
    f"train {SST2} composition=add": "needs its slot",
    # a key of another tool
    f"train {SST2} model=bart": "did you mean backbone?",
    f"train {SST2} learning_rate=1": "did you mean optim.lr?",
    f"train {SST2} batch_size=8": "or recipe.batch_size?",
    f"train {SST2} rank=8": "did you mean ffn.bottleneck or attn.bottleneck?",
    # nothing
    f"train {SST2} scale=null": "scale cannot be null; leave it out",
    f"train {SST2} tracking=null": "tracking cannot be null; leave it out, or choose from",
    f"train {SST2} debug=[1,2]": "debug cannot be [1,2]; leave it out, or choose from none",
    f"train {SST2} task.path= --cfg job": "task.path is empty; give task.path=DIR",
    f"train {SST2} tracking.console=null": "tracking.console: must not be null",
    # a key that its section does not have
    f"train {SST2} +ffn.form.foo=3": "there is no key ffn.form.foo; did you mean",
    f"train {SST2} +ffn.form.dropuot=0.1": "did you mean ffn.form.dropout?",
    f"train {SST2} +attn.composition.norm=true": "there is no key attn.composition.norm",
    f"train {SST2} +tracking.wandb.tag=x": "did you mean tracking.wandb.tags?",
    # a number
    f"train {SST2} ffn.bottleneck=-1": "must be at least 1",
    f"train {SST2} ffn.bottleneck=2.5": "must be a whole number",
    f"train {SST2} seed=1e3": "seed=1000.0: must be a whole number",
    f"train {SST2} tracking.wandb.project=2024": 'quote it, as in "tracking.wandb',
    f"train {SST2} ffn.bottleneck='a lot'": "must be a whole number",
    f"train {SST2} optim.lr=fast": "optim.lr=fast: must be a number",
    f"train {SST2} seed=1,2": "add -m",
    "train task=xsum method=mam evaluation.decoding.max_length=1": "must be at least 2",
    "train task=xsum method=mam task.lead_words=0": "task.lead_words=0: must be at least 1",
    # an illegal combination
    f"train {SST2} composition@ffn=gated": "attention logits",
    f"train -m {SST2} composition@ffn=gated seed=1,2": "attention logits",
    f"train {SST2} attn=null ffn=null": "nothing trains",
    # not key=value
    "train": "task= one of arc_challenge",
    "train -m": "task= one of arc_challenge",
    f"train {SST2} mam": "mam is not key=value",
    f"train {SST2} seed=[1": "cannot read",
    f"train -m experiment=table6, {SST2}": "cannot read experiment=table6,; leave out the comma",
    "train task=sst2, method=mam": "cannot read task=sst2,; leave out the comma",
    "train task=sst2 --fast": "no option --fast; see --help",
    f"train {SST2} --infos x": "did you mean --info?",
    # a key written as an option
    f"train {SST2} --epochs 3": "there is no option --epochs; write recipe.epochs=3",
    f"train {SST2} --seed=3": "there is no option --seed=3; write seed=3",
    f"train {SST2} --force": "there is no option --force; write force=true",
    f"train {SST2} --learning-rate": "write optim.lr=...",
    "train --task sst2 method=mam": "there is no option --task; write task=sst2",
    "eval RUN --task.path data": "there is no option --task.path; write task.path=data",
    # an option without effect
    f"train {SST2} --resolve": "--resolve has an effect with --cfg only",
    f"train {SST2} --experimental-rerun x": "no option --experimental-rerun",
    # several values, or a group that takes no null
    f"train {SST2} unfreeze=a,b": "unfreeze=a,b: must be a list, as in unfreeze=[a,b]",
    f"train {SST2} seed=range(1,3)": "seed=range(1,3) names several values; add -m",
    f"train {SST2} tracking.wandb.tags=a,b": "write tracking.wandb.tags=[a,b] for a list; add -m",
    f"train {SST2} form@ffn=null": "form@ffn cannot be null; ffn=null empties the slot",
    f"train {SST2} experiment=null precision=fp8": "precision=fp8 is unknown",
    f"train {SST2} hparams_search=null precision=fp8": "precision=fp8 is unknown",
    f"train {SST2} hparams_search=lr": "hparams_search=lr is a search of many runs; add -m",
    "train -m +experiment=table6_xsum precision=fp8": "precision=fp8 is unknown",
    # an engine
    f"train -m {SST2} hydra/launcher=joblib,basic": "all runs share one hydra/launcher",
    f"train -m {SST2} hydra.launcher.ray.init.address=a": "needs hydra/launcher=ray",
    f"train -m {SST2} hydra/launcher=ray hydra.launcher.ray.int=a": "did you mean",
    # evaluation
    "eval": "no run is named",
    "eval split=test": "no run is named",
    "eval run=nowhere": "nowhere is not a run folder",
    "eval run=nowhere splt=test": "did you mean split?",
}

NO_FOLDER = {
    f"train {SST2} backbone.path=model task.path=nowhere": "nowhere: task.path names a folder",
    f"train {SST2} backbone.path=model task.path=empty": "no train.jsonl, .json, .csv",
    f"train {SST2} task.path=data backbone.path=nowhere": "nowhere: there is no such folder",
}
NO_NETWORK = {
    f"train {SST2} task.path=data recipe.max_steps=1": "cannot be reached",
    f"train {SST2} backbone.path=model recipe.max_steps=1": "task.path=DIR",
    "train task=sst2 method=mam backbone.path=model": "task.path=DIR",
    "train task=sst2 method=mam task.path=data": "cannot reach the model hub",
}

SCRIPT = """
import contextlib, io, json, shlex, sys, time
from unipeft_run import cli
for line in json.loads(sys.argv[1]):
    command, *sys.argv[1:] = shlex.split(line)
    out, err, code, start = io.StringIO(), io.StringIO(), None, time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            {"train": cli.train, "eval": cli.evaluate}[command]()
        except SystemExit as end:
            code = end.code
    print(json.dumps([line, code, err.getvalue(), time.process_time() - start]))
print(json.dumps(sorted(sys.modules)))
"""


def run_lines(lines: list[str], folder: Path) -> tuple[dict[str, tuple[Any, ...]], list[str]]:
    """Run command lines in one fresh interpreter in `folder`, without a network.

    Returns the exit code, stderr and CPU seconds of each, and the imported modules.
    """
    nowhere = "http://127.0.0.1:9"
    # without this machine's pip settings, which could name a reachable index
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    env = {
        **inherited,
        "PYTHONPATH": str(ROOT),
        "UNIPEFT_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "cache" / "hub"),
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": nowhere,
        "PIP_INDEX_URL": nowhere,
        "PIP_RETRIES": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "no_proxy": "*",
    }
    arguments = [sys.executable, "-c", SCRIPT, json.dumps(lines)]
    done = subprocess.run(
        arguments, capture_output=True, text=True, env=env, cwd=folder, check=True, timeout=300
    )
    *results, modules = map(json.loads, done.stdout.splitlines())
    return {line: tuple(answer) for line, *answer in results}, modules


def check(line: str, answer: tuple[Any, ...], part: str) -> None:
    code, stderr, _ = answer
    assert code == 2, (line, stderr)
    assert 1 <= len(stderr.splitlines()) <= 3, (line, stderr)
    assert "Traceback" not in stderr, (line, stderr)
    assert part in stderr, (line, stderr)


def test_wrong_command_lines_fail_fast(tmp_path: Path) -> None:
    found, modules = run_lines(list(WRONG), tmp_path)
    for line, part in WRONG.items():
        check(line, found[line], part)
        assert found[line][2] < SECONDS, (line, found[line])
    assert not {*HEAVY} & {*modules}
    assert list(tmp_path.iterdir()) == [], "nothing is created"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    write_sentiment(tmp_path / "data")
    return tmp_path


def test_a_missing_folder_is_named_before_a_model_is_loaded(folder: Path) -> None:
    found, modules = run_lines(list(NO_FOLDER), folder)
    for line, part in NO_FOLDER.items():
        check(line, found[line], part)
    assert "torch" not in modules


@pytest.mark.slow
def test_without_a_network_the_alternatives_are_named(folder: Path) -> None:
    found, _ = run_lines(list(NO_NETWORK), folder)
    for line, part in NO_NETWORK.items():
        check(line, found[line], part)


READ = ("train --help", "eval --help", "runs --help", "runs outputs --json", "params --help",
        "space --help", "report --help", "score --help",
        "train task=sst2 method=mam --cfg job")  # fmt: skip


@pytest.mark.parametrize("line", READ)
def test_a_closed_pipe_is_not_an_error(line: str, tmp_path: Path) -> None:
    """Run the command as in `command | true`: nobody reads its output."""
    (tmp_path / "outputs").mkdir()
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "unipeft_run", *line.split()],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_lines_are_flushed_as_they_are_printed(tmp_path: Path) -> None:
    """`os._exit` discards buffered output."""
    script = """
import os
from unipeft_run.commands.pipes import ignore_broken_pipes
ignore_broken_pipes()
print("test accuracy 84.51")
os._exit(0)
"""
    log = tmp_path / "log"
    with log.open("w") as file:
        subprocess.run([sys.executable, "-c", script], stdout=file, check=True)
    assert log.read_text() == "test accuracy 84.51\n"


@pytest.mark.parametrize("arguments", [["task=sst", "method=mam"], ["--help"]])
def test_the_installed_command_needs_little_cpu_time(arguments: list[str], tmp_path: Path) -> None:
    """Measure the installed console script, including its start and its imports."""
    command = Path(sys.executable).with_name("unipeft-train")
    script = f"""
import resource, subprocess
done = subprocess.run({[str(command), *arguments]!r}, capture_output=True, timeout=60)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(done.returncode, usage.ru_utime + usage.ru_stime)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    code, seconds = done.stdout.split()
    assert int(code) == (0 if "--help" in arguments else 2)
    assert float(seconds) < SECONDS
