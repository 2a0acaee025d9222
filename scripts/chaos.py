"""Kill real runs at random moments, resume them with the same command, compare every bit.

    python scripts/chaos.py 30 [--seed 0] [--folder DIR] [--fork]

Every second run is killed in the middle of a checkpoint's writing, the others anywhere between
the start of the process and its end. A run may be killed several times. Exits with 1 if one of
them ends with another weight, metric, record or prediction than the run nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).parent.parent
TIMED = ("seconds", "per_second", "peak_memory_mib")
SETTINGS = (
    "task=sst2",
    "method=mam",
    "scale=mini",
    "task.max_source_length=24",
    "recipe.max_steps=40",
    "recipe.batch_size=4",
    "recipe.eval_every=10",
    "recipe.checkpoint_every=4",
    "recipe.log_every=2",
    "evaluation.batch_size=16",
    "tracking.wandb.mode=disabled",
)
TRAIN = "import sys; from unipeft_run.cli import train; train()"


class Process(Protocol):
    """What is used of `subprocess.Popen`."""

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...


class Forked:
    """The same command in a copy of this process, which has imported already what it needs."""

    def __init__(self, words: Sequence[str], environment: dict[str, str], printed: Path) -> None:
        import unipeft_run.experiment  # noqa: F401

        self._process = get_context("fork").Process(
            target=self._train, args=(words, environment, printed)
        )
        self._process.start()

    def _train(self, words: Sequence[str], environment: dict[str, str], printed: Path) -> None:
        from unipeft_run.cli import train

        os.environ.update(environment)
        sys.argv = ["unipeft-train", *words]
        with printed.open("w", buffering=1) as file:
            os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
            sys.stdout = sys.stderr = file  # a test runner has its own here
            train()

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once there is one. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("unipeft-train", timeout or 0)
        return self._process.exitcode

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()


Wait = Callable[[Path, Process], None]


@dataclass
class Ground:
    """A tiny backbone, tiny data and a folder for the runs on them.

    `fork`: spare the imports, which are most of the time of a run so small.
    """

    folder: Path
    fork: bool = False
    kills: Counter[str] = field(default_factory=Counter)

    def prepare(self) -> None:
        """Write the backbone and the data."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
        import tiny_text

        tokenizer = tiny_text.bart_tokenizer()
        tokenizer.save_pretrained(self.folder / "backbone")
        tiny_text.roberta(len(tokenizer), 2).save_pretrained(self.folder / "backbone")
        draw, words = random.Random(0), " ".join(tiny_text.TEXT).split()
        (self.folder / "data").mkdir()
        for split, size in (("train", 64), ("validation", 32), ("test", 32)):
            rows = (
                {"sentence": " ".join(draw.choices(words, k=8)), "label": draw.randrange(2)}
                for _ in range(size)
            )
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (self.folder / "data" / f"{split}.jsonl").write_text(text)

    def start(self, *words: str, output: str) -> Process:
        """The command of a run, in a process of its own; what it prints goes to a file."""
        places = (
            f"task.path={self.folder / 'data'}",
            f"backbone.path={self.folder / 'backbone'}",
            f"output={self.folder / output}",
        )
        given = [*SETTINGS, *places, *words]
        environment = {"UNIPEFT_CACHE": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1"}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        printed = self.folder / f"{output}.log"
        if self.fork:
            return Forked(given, environment, printed)
        with printed.open("w") as file:
            command = [sys.executable, "-c", TRAIN, *given]
            environment = {**os.environ, **environment}
            return subprocess.Popen(command, env=environment, stdout=file, stderr=file)

    def finish(self, *words: str, output: str) -> str:
        """Run the command to its end; its output. Raises RuntimeError if it fails."""
        code = self.start(*words, output=output).wait()
        text = (self.folder / f"{output}.log").read_text()
        if code:
            raise RuntimeError(f"exit code {code}:\n{text}")
        return text

    def disturb(self, wait: Wait, *words: str, output: str) -> bool:
        """Start the run, kill it after `wait`; whether it had not ended before."""
        began = time.time()
        process = self.start(*words, output=output)
        wait(self.folder / output, process)
        process.kill()
        killed = process.wait() < 0
        if killed:
            self.kills[phase(self.folder / output, began)] += 1
        return killed


def run_folders(output: Path) -> list[Path]:
    """The run folders under `output`."""
    return sorted(path.parent for path in output.glob("*/*/*/config.yaml"))


def phase(output: Path, began: float) -> str:
    """What the killed process, started at `began`, was at, from what it left."""
    folders = run_folders(output)
    if not folders or (folders[0] / "config.yaml").stat().st_mtime < began:
        return "loading"
    folder = folders[0]
    if any(path.stat().st_mtime > began for path in folder.glob("checkpoints/.*.part")):
        return "writing a checkpoint"
    if (folder / "metrics.json").exists():
        return "leaving"
    last = folder / "checkpoints" / "last" / "state.json"
    step = json.loads(last.read_text())["training"]["progress"]["step"] if last.exists() else 0
    return "testing" if f"recipe.max_steps={step}" in SETTINGS else "training"


def content(output: Path) -> dict[str, Any]:
    """All that the one run under `output` left, but for times."""
    (folder,) = run_folders(output)
    lines = (folder / "train.jsonl").read_text().splitlines()
    return {
        "metrics": _timeless(json.loads((folder / "metrics.json").read_text())),
        "records": [_timeless(json.loads(line)) for line in lines],
        **{
            name: (folder / name).read_bytes()
            for name in ("delta.safetensors", "delta.json", "predictions/test.jsonl")
        },
    }


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if not key.endswith(TIMED)}


def after(seconds: float) -> Wait:
    """Wait so long, or until the process ends."""

    def wait(_: Path, process: Process) -> None:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    return wait


def in_write(number: int, delay: float) -> Wait:
    """Wait until the process writes its checkpoint `number`, and then `delay` seconds."""

    def wait(output: Path, process: Process) -> None:
        seen, there = 0, False
        while process.poll() is None:
            before, there = there, any(output.glob("*/*/*/checkpoints/.*.part"))
            seen += there and not before
            if seen >= number:
                time.sleep(delay)
                return
            time.sleep(0.0005)

    return wait


def chaos(ground: Ground, runs: int, seed: int = 0) -> list[str]:
    """Disturb `runs` runs, each until it ends; what differed in which."""
    draw, wrong = random.Random(seed), []
    began = time.monotonic()
    ground.finish(output="undisturbed")
    length = time.monotonic() - began
    expected = content(ground.folder / "undisturbed")
    for number in range(runs):
        output = f"run{number}"
        while True:
            aimed = in_write(draw.randrange(1, 8), draw.random() * 0.02)
            wait = aimed if number % 2 else after(draw.uniform(0, 1.1 * length))
            if not ground.disturb(wait, output=output) or draw.random() < 0.6:
                break
        ground.finish(output=output)
        found = content(ground.folder / output)
        differ = [name for name in expected if found[name] != expected[name]]
        wrong += [f"{output}: {', '.join(differ)}"] if differ else []
        print(f"{output}: {', '.join(differ) or 'the same'}", flush=True)
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was seen; 0 if all runs are bit-identical."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep everything there")
    parser.add_argument("--fork", action="store_true", help="spare each process its imports")
    args = parser.parse_args(argv)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="chaos"))
    ground = Ground(folder, args.fork)
    ground.prepare()
    wrong = chaos(ground, args.runs, args.seed)
    phases = ", ".join(f"{count} {name}" for name, count in ground.kills.most_common())
    print(f"{args.runs - len(wrong)} of {args.runs} bit-identical; kills: {phases}")
    if not args.folder:
        shutil.rmtree(folder)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
