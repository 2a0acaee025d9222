"""Kill runs at random moments, resume them with the same command, and compare every bit.

    python scripts/chaos.py 30 [--seed 0] [--folder DIR] [--fork]

Every second run is killed while it writes a checkpoint, the others at any moment of the process.
A run may be killed several times. Exits with 1 if any weight, metric, record or prediction differs
from those of an undisturbed run.
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
    """The methods of `subprocess.Popen` used here."""

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...


class Forked:
    """A run in a fork of this process, which has already imported everything."""

    def __init__(
        self, overrides: Sequence[str], environment: dict[str, str], printed: Path
    ) -> None:
        import unipeft_run.experiment  # noqa: F401

        self._process = get_context("fork").Process(
            target=self._train, args=(overrides, environment, printed)
        )
        self._process.start()

    def _train(self, overrides: Sequence[str], environment: dict[str, str], printed: Path) -> None:
        from unipeft_run.cli import train

        os.environ.update(environment)
        sys.argv = ["unipeft-train", *overrides]
        with printed.open("w", buffering=1) as file:
            os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
            sys.stdout = sys.stderr = file  # a test runner replaces these
            train()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("unipeft-train", timeout or 0)
        return self._process.exitcode

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()


Wait = Callable[[Path, Process], None]


@dataclass
class Sandbox:
    """A folder with a tiny backbone, tiny data and the runs on them.

    With `fork` a run does not repeat the imports, which take most of the time of a tiny run.
    """

    folder: Path
    fork: bool = False
    kills: Counter[str] = field(default_factory=Counter)

    def prepare(self) -> None:
        """Write the backbone and the data."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
        import tiny_text

        tokenizer = tiny_text.bart_tokenizer()
        tokenizer.save_pretrained(self.folder / "backbone")
        tiny_text.roberta(len(tokenizer), 2).save_pretrained(self.folder / "backbone")
        draw, vocabulary = random.Random(0), " ".join(tiny_text.TEXT).split()
        (self.folder / "data").mkdir()
        for split, size in (("train", 64), ("validation", 32), ("test", 32)):
            rows = (
                {"sentence": " ".join(draw.choices(vocabulary, k=8)), "label": draw.randrange(2)}
                for _ in range(size)
            )
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (self.folder / "data" / f"{split}.jsonl").write_text(text)

    def start(self, *overrides: str, output: str) -> Process:
        """Start the command in a new process that prints to OUTPUT.log."""
        places = (
            f"task.path={self.folder / 'data'}",
            f"backbone.path={self.folder / 'backbone'}",
            f"output={self.folder / output}",
        )
        given = [*SETTINGS, *places, *overrides]
        environment = {"UNIPEFT_CACHE": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1"}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        printed = self.folder / f"{output}.log"
        if self.fork:
            return Forked(given, environment, printed)
        with printed.open("w") as file:
            command = [sys.executable, "-c", TRAIN, *given]
            environment = {**os.environ, **environment}
            return subprocess.Popen(command, env=environment, stdout=file, stderr=file)

    def finish(self, *overrides: str, output: str) -> str:
        """Run the command and return what it printed. Raises RuntimeError if it fails."""
        code = self.start(*overrides, output=output).wait()
        text = (self.folder / f"{output}.log").read_text()
        if code:
            raise RuntimeError(f"exit code {code}:\n{text}")
        return text

    def disturb(self, wait: Wait, *overrides: str, output: str) -> bool:
        """Start the run and kill it after `wait`; return False if it ended earlier."""
        began = time.time()
        process = self.start(*overrides, output=output)
        wait(self.folder / output, process)
        process.kill()
        killed = process.wait() < 0
        if killed:
            self.kills[find_phase(self.folder / output, began)] += 1
        return killed


def find_run_folders(output: Path) -> list[Path]:
    """List the run folders under `output`."""
    return sorted(path.parent for path in output.glob("*/*/*/config.yaml"))


def find_phase(output: Path, began: float) -> str:
    """Infer from its files what a process started at `began` was doing when it was killed."""
    folders = find_run_folders(output)
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


def read_results(output: Path) -> dict[str, Any]:
    """Return everything that the only run under `output` wrote, without times."""
    (folder,) = find_run_folders(output)
    lines = (folder / "train.jsonl").read_text().splitlines()
    return {
        "metrics": drop_times(json.loads((folder / "metrics.json").read_text())),
        "records": [drop_times(json.loads(line)) for line in lines],
        **{
            name: (folder / name).read_bytes()
            for name in ("delta.safetensors", "delta.json", "predictions/test.jsonl")
        },
    }


def drop_times(record: dict[str, Any]) -> dict[str, Any]:
    """Remove the entries that differ from run to run: times, speeds, memory."""
    return {key: value for key, value in record.items() if not key.endswith(TIMED)}


def wait_seconds(seconds: float) -> Wait:
    """Wait for a time, or until the process ends."""

    def wait(_: Path, process: Process) -> None:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    return wait


def wait_for_checkpoint(number: int, delay: float) -> Wait:
    """Wait until the process starts to write its checkpoint `number`, then `delay` seconds."""

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


def disturb_runs(sandbox: Sandbox, runs: int, seed: int = 0) -> list[str]:
    """Kill and resume `runs` runs until they finish; return what differed, a line per run."""
    draw, wrong = random.Random(seed), []
    began = time.monotonic()
    sandbox.finish(output="undisturbed")
    length = time.monotonic() - began
    expected = read_results(sandbox.folder / "undisturbed")
    for number in range(runs):
        output = f"run{number}"
        while True:
            aimed = wait_for_checkpoint(draw.randrange(1, 8), draw.random() * 0.02)
            wait = aimed if number % 2 else wait_seconds(draw.uniform(0, 1.1 * length))
            if not sandbox.disturb(wait, output=output) or draw.random() < 0.6:
                break
        sandbox.finish(output=output)
        found = read_results(sandbox.folder / output)
        differ = [name for name in expected if found[name] != expected[name]]
        wrong += [f"{output}: {', '.join(differ)}"] if differ else []
        print(f"{output}: {', '.join(differ) or 'identical'}", flush=True)
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; 0 if all runs are bit-identical."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=int, help="number of runs to kill and resume")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="work here and keep everything")
    parser.add_argument("--fork", action="store_true", help="fork processes, to save their imports")
    args = parser.parse_args(argv)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="chaos"))
    sandbox = Sandbox(folder, args.fork)
    sandbox.prepare()
    wrong = disturb_runs(sandbox, args.runs, args.seed)
    phases = ", ".join(f"{count} {name}" for name, count in sandbox.kills.most_common())
    print(f"{args.runs - len(wrong)} of {args.runs} bit-identical; kills: {phases}")
    if not args.folder:
        shutil.rmtree(folder)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
