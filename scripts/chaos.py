"""Kill real runs at random moments, resume them with the same command, compare every bit.

    python scripts/chaos.py 30 [--seed 0] [--folder DIR]

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
from pathlib import Path
from typing import Any

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


@dataclass
class Ground:
    """A tiny backbone, tiny data and a folder for the runs on them."""

    folder: Path
    kills: Counter[str] = field(default_factory=Counter)

    def prepare(self) -> None:
        """Write the backbone and the data."""
        sys.path.insert(0, str(ROOT / "tests"))
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

    def start(self, *words: str, output: str) -> subprocess.Popen[str]:
        """The command of a run, in a process of its own."""
        places = (
            f"task.path={self.folder / 'data'}",
            f"backbone.path={self.folder / 'backbone'}",
            f"output={self.folder / output}",
        )
        return subprocess.Popen(
            [sys.executable, "-c", TRAIN, *SETTINGS, *places, *words],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
                "UNIPEFT_CACHE": str(self.folder / "cache"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, *words: str, output: str) -> str:
        """Run the command to its end; its output. Raises RuntimeError if it fails."""
        process = self.start(*words, output=output)
        text, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"exit code {process.returncode}:\n{text}")
        return text

    def disturb(self, output: str, wait: Callable[[Path, subprocess.Popen[str]], None]) -> bool:
        """Start the run, kill it after `wait`; whether it had not ended before."""
        process = self.start(output=output)
        wait(self.folder / output, process)
        process.kill()
        process.communicate()
        killed = process.returncode < 0
        if killed:
            self.kills[phase(self.folder / output)] += 1
        return killed


def run_folders(output: Path) -> list[Path]:
    """The run folders under `output`."""
    return sorted(path.parent for path in output.glob("*/*/*/config.yaml"))


def phase(output: Path) -> str:
    """What the killed process was at, from what it left."""
    folders = run_folders(output)
    if not folders:
        return "loading"
    folder = folders[0]
    if any(folder.glob("checkpoints/.*.part")):
        return "writing a checkpoint"
    if (folder / "metrics.json").exists():
        return "leaving"
    status = (
        json.loads((folder / "status.json").read_text()) if any(folder.glob("status.json")) else {}
    )
    if (folder / "delta.safetensors").exists() or status.get("step") == status.get("total"):
        return "testing"
    return "training, or loading again"


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


def after(seconds: float) -> Callable[[Path, subprocess.Popen[str]], None]:
    """Wait so long, or until the process ends."""

    def wait(_: Path, process: subprocess.Popen[str]) -> None:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    return wait


def in_write(number: int, delay: float) -> Callable[[Path, subprocess.Popen[str]], None]:
    """Wait until the process writes its checkpoint `number`, and then `delay` seconds."""

    def wait(output: Path, process: subprocess.Popen[str]) -> None:
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
            if not ground.disturb(output, wait) or draw.random() < 0.4:
                break
        ground.finish(output=output)
        found = content(ground.folder / output)
        differ = [name for name in expected if found[name] != expected[name]]
        wrong += [f"{output}: {', '.join(differ)}"] if differ else []
        print(
            f"{output}: {'differs in ' + ', '.join(differ) if differ else 'the same'}", flush=True
        )
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was seen; 0 if all runs are bit-identical."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep everything there")
    args = parser.parse_args(argv)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="chaos"))
    folder.mkdir(parents=True, exist_ok=True)
    ground = Ground(folder)
    ground.prepare()
    wrong = chaos(ground, args.runs, args.seed)
    phases = ", ".join(f"{count} {name}" for name, count in ground.kills.most_common())
    print(f"{args.runs - len(wrong)} of {args.runs} bit-identical; kills: {phases}")
    if not args.folder:
        shutil.rmtree(folder)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
