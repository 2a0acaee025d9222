"""The tasks of GLUE whose columns, labels and metrics are data in conf/task/."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from sampling import sampled
from tiny_config import configured

from unipeft_run.data.tasks import hub
from unipeft_run.data.tasks.base import Task
from unipeft_run.data.tasks.build import build_task
from unipeft_run.errors import UserError

# task -> (columns of texts, classes, metrics), as in the data card of nyu-mll/glue
TASKS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "cola": (("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
    "mrpc": (("sentence1", "sentence2"), ("not_equivalent", "equivalent"), ("f1", "accuracy")),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate"), ("f1", "accuracy")),
    "qnli": (("question", "sentence"), ("entailment", "not_entailment"), ("accuracy",)),
    "rte": (("sentence1", "sentence2"), ("entailment", "not_entailment"), ("accuracy",)),
    "wnli": (("sentence1", "sentence2"), ("not_entailment", "entailment"), ("accuracy",)),
    "stsb": (("sentence1", "sentence2"), (), ("pearson", "spearman")),
}
TEXTS = ["the cat sat", "a dog barked", "the cat lay"]


def make(name: str, folder: Path | None = None) -> Task:
    task = build_task(configured(f"task={name}", "method=mam").task)
    task.path = folder
    return task


def rows_of(name: str) -> list[dict[str, Any]]:
    labels = [0.5, 3, 4.25] if name == "stsb" else [1, 0, 1]
    texts = [dict.fromkeys(TASKS[name][0], text) for text in TEXTS]
    return [{**t, "label": v, "idx": n} for n, (t, v) in enumerate(zip(texts, labels, strict=True))]


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.mark.parametrize("name", TASKS)
def test_columns_labels_and_metrics_are_those_of_the_benchmark(name: str) -> None:
    task, (text, labels, metrics) = make(name), TASKS[name]
    assert (task.columns.text, task.label_names, task.metrics) == (text, labels, metrics)
    assert task.primary == task.selection == metrics[0]
    assert task.num_labels == (len(labels) or 1)
    assert task.hub == {"path": "nyu-mll/glue", "name": name, "revision": None}


def test_a_single_metric_or_column_needs_no_list() -> None:
    words = "task.metric=accuracy", "task.selection=accuracy", "task.text=line"
    task = build_task(configured("task=cola", "method=mam", *words).task)
    assert (task.metrics, task.columns.text) == (("accuracy",), ("line",))


@pytest.mark.parametrize(("name", "scale"), sampled(product(TASKS, ["paper", "mini"]), 3))
def test_every_task_has_a_recipe_and_the_papers_sizes(name: str, scale: str) -> None:
    config = configured(f"task={name}", "method=mam", f"scale={scale}")
    assert config.backbone.name == ("roberta_base" if scale == "paper" else "roberta_mini")
    assert (config.head, config.task.mini) == ("trained", None)
    if scale == "paper":
        assert (config.slots()["attn"].bottleneck, config.slots()["ffn"].bottleneck) == (16, 16)
        assert configured(f"task={name}", "method=full").optim.lr == 2e-5


@pytest.mark.parametrize("name", TASKS)
def test_local_data_is_read_and_scored(name: str, tmp_path: Path) -> None:
    task = make(name, write(tmp_path, rows_of(name)))
    splits = task.load()
    references = task.references(splits["test"])
    assert references == [row["label"] for row in rows_of(name)]
    scores = task.score(references, references)
    assert scores.metrics == pytest.approx(dict.fromkeys(task.metrics, 100.0))
    assert set(scores.signatures) == {*task.metrics, "per_example"}
    assert len(task.baseline(splits)) == 3
    assert task.ids(splits["test"]) == ["0", "1", "2"]


def test_the_baselines(tmp_path: Path) -> None:
    task = make("mrpc", write(tmp_path, rows_of("mrpc")))
    assert task.baseline(task.load()) == [1, 1, 1]
    pairs = [("a cat sat", "the cat sat"), ("One dog.", "one dog ."), ("x", "y")]
    rows = [{"sentence1": a, "sentence2": b, "label": 1} for a, b in pairs]
    similar = make("stsb", write(tmp_path, rows))
    assert similar.baseline(similar.load()) == [0.5, 1.0, 0.0]


def test_the_test_split_is_the_development_set(monkeypatch: pytest.MonkeyPatch) -> None:
    features = Features(
        sentence1=Value("string"),
        sentence2=Value("string"),
        label=ClassLabel(names=["not_equivalent", "equivalent"]),
        idx=Value("int32"),
    )

    def split(label: int) -> Dataset:
        row = {"sentence1": "a", "sentence2": "b", "label": label, "idx": 3}
        return Dataset.from_list([row], features=features)

    stored = DatasetDict(train=split(0), validation=split(1), test=split(0))
    monkeypatch.setattr(hub, "load_hub", lambda task, **source: stored)
    splits = make("mrpc").load()
    assert [splits[name]["label"][0] for name in ("train", "validation", "test")] == [0, 1, 1]


# Numbers as labels


def write_numbers(folder: Path, labels: list[Any]) -> Path:
    return write(folder, [{"sentence1": "a", "sentence2": "b", "label": v} for v in labels])


@pytest.mark.parametrize("label", ["high", None, True, [1], float("nan"), float("inf")])
def test_a_label_that_is_no_number_is_refused(label: Any, tmp_path: Path) -> None:
    task = make("stsb", write_numbers(tmp_path, [1.0, label]))
    with pytest.raises(UserError, match=r"train.jsonl, line 2: column 'label' holds .*, not a num"):
        task.load()


def test_numbers_in_csv_and_parquet(tmp_path: Path) -> None:
    task = make("stsb", tmp_path)
    (tmp_path / "train.csv").write_text("sentence1,sentence2,label\na,b,3.5\nc,d, 4\n")
    table = pa.table({"sentence1": ["a"], "sentence2": ["b"], "label": pa.array([2.5], "float32")})
    pq.write_table(table, tmp_path / "test.parquet")
    assert task.references(task.load(["train"])["train"]) == [3.5, 4.0]
    assert task.references(task.load(["test"])["test"]) == [2.5]
    pq.write_table(table.set_column(2, "label", pa.array(["?"])), tmp_path / "test.parquet")
    with pytest.raises(UserError, match=r"test.parquet, row 1: column 'label' holds \"\?\", not a"):
        task.load(["test"])
