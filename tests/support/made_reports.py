"""Make run folders with everything a report shows: records, parameters, predictions."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from made_runs import make_run

WORDS = ("the", "river", "mayor", "opened", "a", "bridge", "near", "school", "in", "spring", "who")
ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
SST2 = (("mam", 1, 86), ("mam", 2, 86), ("lora_attn", 1, 84), ("bitfit", 1, 70))
STEPS = range(10, 101, 10)
SHARES = {"mam": 2.29, "lora_attn": 0.52, "bitfit": 0.34, "lora_ffn": 1.45}

Row = dict[str, Any]


def write_lines(file: Path, rows: Sequence[Row]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_class_rows(seed: int, count: int, accuracy: float) -> list[Row]:
    """Make predictions of which about `accuracy` percent are right."""
    generator, rows = random.Random(seed), []
    for number in range(count):
        reference, other = ("positive", "negative") if number % 2 else ("negative", "positive")
        right = generator.random() < accuracy / 100
        prediction = reference if right else other
        rows.append({"id": str(number), "prediction": prediction, "reference": reference,
                     "score": 100.0 * right})  # fmt: skip
    return rows


def make_text_rows(seed: int, count: int, noise: float) -> list[Row]:
    """Make predictions that differ from the reference in a share `noise` of the words."""
    fixed, generator, rows = random.Random(7), random.Random(seed), []
    for number in range(count):
        words = fixed.choices(WORDS, k=18)
        changed = [generator.choice(WORDS) if generator.random() < noise else w for w in words]
        rows.append({"id": str(number), "prediction": " ".join(changed),
                     "reference": " ".join(words), "score": 40 * (1 - noise)})  # fmt: skip
    return rows


def make_full_run(*overrides: str, rows: Sequence[Row], final: float) -> Path:
    """Make a finished run with these test predictions; its validation metric rises to `final`."""
    own = dict(override.split("=", 1) for override in overrides)
    share, seed = SHARES[own["method"]], int(own.get("seed", 42))
    score = sum(row["score"] for row in rows) / len(rows)
    name = {"xsum": "rouge2"}.get(own["task"], "accuracy")
    stored = int(22_713_986 * share / 100)
    folder = make_run(*overrides, primary=score, **{
        "parameters/stored": stored, "parameters/stored_percent": share,
        "signatures": {name: "percent", "per_example": "percent"},
    })  # fmt: skip
    write_lines(folder / "predictions" / "test.jsonl", rows)
    write_lines(folder / "train.jsonl", list(_records(name, final, random.Random(seed))))
    site = {"slot": "ffn", "representation": "ffn", "sites": 6, "trained": stored, "stored": stored}
    sites = [{**site, "stored_percent": share}]
    (folder / "parameters.json").write_text(json.dumps({"sites": sites}))
    return folder


def _records(name: str, final: float, generator: random.Random) -> Any:
    for step in STEPS:
        done = 1 - 2.7 ** (-4 * step / STEPS[-1])
        loss = 0.7 - 0.4 * done + generator.gauss(0, 0.02)
        yield {"step": step, "train/loss": loss, "train/lr": 0.001}
        value = 50 + (final - 50) * done + generator.gauss(0, 1)
        yield {"step": step, "validation/loss": loss, f"validation/{name}": value}


def make_report_runs(change: Callable[[list[Row]], None] = lambda rows: None) -> None:
    """Make runs of three methods on sst2 and of two on xsum; `change` alters the latter's texts."""
    for method, seed, accuracy in SST2:
        rows = make_class_rows(seed + accuracy, 120, accuracy)
        make_full_run("task=sst2", f"method={method}", f"seed={seed}", rows=rows, final=accuracy)
    for method, noise in (("mam", 0.3), ("lora_ffn", 0.5)):
        texts = make_text_rows(1, 30, noise)
        change(texts)
        make_full_run("task=xsum", f"method={method}", rows=texts, final=30)
