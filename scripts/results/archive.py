"""Finished runs in one Parquet file: what reports need, without the data sets' texts.

A row holds a run's configuration, metrics, training records and parameter table as they are in its
folder, a digest of its weights, and the statistics of each test example that significance tests
resample. `restore` writes run folders again, so that `unipeft train` skips what the file holds.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from unipeft_run.report.significance import Array, Sample, make_mean
from unipeft_run.report.statistics import CORPUS_METRICS, read_sample, score_bleu
from unipeft_run.runs.reader import RunRecord

SCHEMA = pa.schema(
    [
        ("cell", pa.string()),
        ("seed", pa.int32()),
        ("run_id", pa.string()),
        ("state", pa.string()),
        ("machine", pa.string()),
        ("config", pa.string()),  # YAML
        ("metrics", pa.string()),  # JSON
        ("parameters", pa.string()),  # JSON
        ("train", pa.string()),  # JSON Lines
        ("weights", pa.string()),  # SHA-256 of the stored delta's tensors
        ("examples", pa.string()),  # SHA-256 of the test examples' ids and references
        ("statistics", pa.list_(pa.float64())),  # [examples * width]
        ("width", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Record:
    """A run as stored. `cell`: the name of its cell."""

    cell: str
    seed: int
    run_id: str
    state: str
    machine: str
    config: str
    metrics: str
    parameters: str
    train: str
    weights: str
    examples: str
    statistics: Sequence[float]
    width: int

    @cached_property
    def scores(self) -> Mapping[str, Any]:
        """The content of metrics.json; empty for a run that diverged."""
        return dict(json.loads(self.metrics))

    @property
    def sample(self) -> Sample:
        """The statistics of the test examples, scored with the task's primary metric."""
        values: Array = np.asarray(self.statistics, dtype=float).reshape(-1, self.width)
        if self.width == 1:
            return make_mean(values[:, 0].tolist())
        signature = self.scores["signatures"][self.scores["primary"].removeprefix("test/")]
        return Sample(values, partial(score_bleu, smooth="smooth:exp" in signature))


def make_record(run: RunRecord, cell: str) -> Record:
    """Make the record of a finished or diverged run. Raises `UntestableError`."""
    width, statistics, examples = _read_statistics(run)
    config = yaml.safe_load(_read(run, "config.yaml")) | {"output": "outputs"}
    return Record(
        cell=cell,
        seed=int(run.config["seed"]),
        run_id=run.folder.name,
        state=run.state,
        machine=describe_machine(),
        config=yaml.safe_dump(config, sort_keys=False),
        metrics=json.dumps(dict(run.metrics)),
        parameters=json.dumps(json.loads(_read(run, "parameters.json"))),
        train=_read(run, "train.jsonl"),
        weights=digest_weights(run.folder),
        examples=examples,
        statistics=statistics,
        width=width,
    )


def _read(run: RunRecord, name: str) -> str:
    file = run.folder / name
    return file.read_text(encoding="utf-8") if file.exists() else "{}"


def _read_statistics(run: RunRecord) -> tuple[int, list[float], str]:
    """Return the width, the statistics and the digest of the test examples."""
    if run.state != "done":
        return 1, [], ""
    metric = str(run.metrics["primary"]).removeprefix("test/")
    keys, sample = read_sample(run, metric)
    values = sample.values if metric in CORPUS_METRICS else sample.values[:, :1]
    digest = hashlib.sha256(json.dumps(keys).encode()).hexdigest()
    return values.shape[1], values.ravel().tolist(), digest[:16]


def digest_weights(folder: Path) -> str:
    """Return a digest of the delta's tensors: their names, shapes and bits."""
    file = folder / "delta.safetensors"
    if not file.exists():
        return ""
    from safetensors.torch import load_file

    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def describe_machine() -> str:
    """Describe the hardware and the libraries that determine results bit by bit."""
    fields: dict[str, str] = {}
    if (info := Path("/proc/cpuinfo")).exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    model = fields.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields]
    capability = torch.backends.cpu.get_cpu_capability()
    libraries = [f"{name} {version(name)}" for name in ("torch", "transformers")]
    return ", ".join([model, *numbers, capability, *libraries])


def read_records(file: Path) -> list[Record]:
    """Read a file of records; an empty list if it does not exist."""
    if not file.exists():
        return []
    return [Record(**row) for row in pq.read_table(file, schema=SCHEMA).to_pylist()]


def write_records(file: Path, records: Iterable[Record]) -> None:
    """Write records, sorted by cell and seed."""
    rows = sorted(records, key=lambda record: (record.cell, record.seed, record.run_id))
    table = pa.Table.from_pylist([row_of(record) for record in rows], schema=SCHEMA)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    pq.write_table(table, part, compression="zstd", compression_level=19)
    part.replace(file)


def row_of(record: Record) -> dict[str, Any]:
    """Return the columns of a record."""
    return {name: getattr(record, name) for name in SCHEMA.names}


def restore(records: Iterable[Record], output: Path) -> int:
    """Write the run folders of finished records that `output` lacks; return how many.

    A restored folder has no weights, and its predictions have scores but no texts.
    """
    written = 0
    for record in records:
        scores = record.scores
        if record.state != "done":
            continue
        folder = output / scores["task"] / scores["method"] / record.run_id
        if (folder / "metrics.json").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        steps = json.loads(record.train.splitlines()[-1])["step"]
        status = {
            "state": "done",
            "step": steps,
            "total": steps,
            "seconds_left": None,
            "heartbeat": "",
            "error": None,
        }
        files = {
            "config.yaml": record.config,
            "parameters.json": record.parameters,
            "train.jsonl": record.train,
            "status.json": json.dumps(status),
            "metrics.json": record.metrics,
        }
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8")
        if record.width == 1 and len(record.statistics):
            _write_scores(folder / "predictions" / "test.jsonl", record)
        written += 1
    return written


def _write_scores(file: Path, record: Record) -> None:
    """Write the scores, with the digest of the examples in their ids: other examples, other ids."""
    file.parent.mkdir(exist_ok=True)
    rows = (
        {"id": f"{record.examples}-{number}", "prediction": "", "reference": "", "score": score}
        for number, score in enumerate(record.statistics)
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
