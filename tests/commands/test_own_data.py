"""Own data from the command line: short keys, the recipe by size, a run and its evaluation."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tiny_text
from tiny_cli import call

from unipeft_run import cli
from unipeft_run.commands import params, score
from unipeft_run.config import compose, load, normalise_overrides, plan, resolve
from unipeft_run.data.tasks.build import build_task
from unipeft_run.errors import UserError
from unipeft_run.run import evaluate

PAIRS = ("task=text2text", "data=pairs.csv", "source=de", "target=en", "method=mam", "scale=mini")
REVIEWS = (
    *("task=text_classification", "data=reviews.csv", "text=review", "label=stars"),
    *("method=bitfit", "scale=mini"),
)
TINY = (
    *("recipe.max_steps=3", "recipe.eval_every=2", "tracking=local", "evaluation.batch_size=8"),
    *("task.max_source_length=20", "output=outputs"),
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with two files of own data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path / "cache"))
    pairs = [f"die Katze {n},the cat {n}\n" for n in range(40)]
    Path("pairs.csv").write_text("de,en\n" + "".join(pairs))
    reviews = [f"film {n},{('bad', 'fair', 'good')[n % 3]}\n" for n in range(60)]
    Path("reviews.csv").write_text("review,stars\n" + "".join(reviews))
    return tmp_path


def test_short_keys_are_those_of_the_task() -> None:
    assert normalise_overrides(["task=text2text", "data=a.csv", "metric=chrf++"]) == [
        "task=text2text", "task.data=a.csv", "task.metric='chrf++'",
    ]  # fmt: skip
    assert normalise_overrides(["task=sst2", "data=a.csv"]) == ["task=sst2", "data=a.csv"]
    assert normalise_overrides(["run=DIR", "data=a.csv"])[1] == "data=a.csv"
    long = [word if "=" not in word or word.startswith(("task=", "method", "scale"))
            else f"task.{word}" for word in PAIRS]  # fmt: skip
    assert plan(compose(long)).run_id == plan(compose(PAIRS)).run_id


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((*PAIRS, "sorce=de"), "there is no key sorce; did you mean source?"),
        ((*PAIRS, "task.sorce=de"), "did you mean task.source?"),
        ((*PAIRS, "source=d"), "its columns are de, en"),
        ((*PAIRS, "metric=chfr"), "did you mean chrf?"),
        ((*PAIRS, "metric=chrf,bleu"), "write task.metric=[chrf,bleu] for a list; add -m"),
        ((*PAIRS, "data=pair.csv"), "did you mean"),
        ((*PAIRS, "backbone=mbart_mini"), "task.source_language=de_DE"),
        ((*PAIRS, "source_language=de_DE"), "the tokenizer of bart has no language codes"),
        ((*PAIRS, "test_size=0.5", "validation_size=0.5"), "for training"),
        ((*PAIRS, "test_size=x"), "task.test_size=x: must be a number"),
        ((*PAIRS, "metric=chrf", "task.rouge_tokenizer=unicode"), "task.metric has no ROUGE"),
        (("task=text2text", "method=mam", "scale=mini"), "needs data; give data=FILE"),
        ((*REVIEWS, "label=star"), "did you mean 'stars'?"),
        (("task=sst2", "method=mam", "scale=mini", "data=x"), "did you mean task.path?"),
    ],
)
def test_a_mistake_is_one_message(
    words: tuple[str, ...],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in ("source=", "data=", "label="):  # the last value of a key wins
        same = [word for word in words if word.startswith(key)]
        words = tuple(word for word in words if word not in same[:-1])
    assert call(cli.train, monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1


def test_the_recipe_follows_the_size_of_the_data(folder: Path) -> None:
    small = resolve(compose(PAIRS)).recipe
    assert (small.batch_size, small.max_steps, small.eval_every) == (8, 200, 50)
    Path("pairs.csv").write_text("de,en\n" + "".join(f"a {n},b {n}\n" for n in range(1000)))
    larger = resolve(compose(PAIRS)).recipe
    assert (larger.batch_size, larger.max_steps, larger.eval_every) == (16, 500, 125)
    limited = resolve(compose([*PAIRS, "limit.train=100", "recipe.batch_size=5"])).recipe
    assert (limited.batch_size, limited.max_steps) == (5, 200)
    paper = resolve(compose(PAIRS[:-1])).recipe
    assert (paper.epochs, paper.max_steps, paper.eval_every) == (20, None, None)


def test_the_labels_of_the_data_are_part_of_the_configuration() -> None:
    config = resolve(compose(REVIEWS))
    assert config.task.keywords["labels"] == ["bad", "fair", "good"]
    with pytest.raises(UserError, match="two or more different names"):
        resolve(compose([*REVIEWS, "labels=[bad]"]))


@pytest.mark.parametrize("labels", ["[1,2.5,true]", "['1','2.5','true']", "[1,2.5,True]"])
def test_labels_may_look_like_numbers_and_truth_values(labels: str) -> None:
    Path("reviews.csv").write_text("review,stars\n" + "a,1\nb,2.5\nc,true\nd,1\n" * 5)
    config = resolve(compose([*REVIEWS, f"labels={labels}"]))
    assert config.task.keywords["labels"] == ["1", "2.5", "true"]
    assert build_task(config.task).label_names == ("1", "2.5", "true")


def test_the_identity_is_the_content_and_the_split(folder: Path) -> None:
    before = plan(compose(PAIRS)).run_id
    Path("pairs.csv").rename("moved.csv")
    moved = [word.replace("pairs", "moved") for word in PAIRS]
    assert plan(compose(moved)).run_id == before
    assert plan(compose([*moved, "task.split_seed=1"])).run_id != before
    with Path("moved.csv").open("a") as out:
        out.write("noch eine,one more\n")
    assert plan(compose(moved)).run_id != before


def test_parameters_are_counted_for_the_classes_of_the_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [word for word in REVIEWS if word != "scale=mini"]
    assert params.main([*given, "format=json"]) == 0
    three = json.loads(capsys.readouterr().out)["backbone"]
    assert params.main([*given, "labels=[bad,fair,good,best]", "format=json"]) == 0
    assert json.loads(capsys.readouterr().out)["backbone"] == three + 768 + 1


def test_files_of_texts_and_classes_are_scored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("p").write_text("4\n5\n5\n")
    Path("r").write_text("4\n5\n4\n")
    files = "predictions=p", "references=r"
    assert score.main(["task=text_classification", *files, "format=json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"] == pytest.approx(200 / 3)
    names = "metric=exact_match,ter"
    assert score.main(["task=text2text", *files, names, "format=json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["metrics"]) == ["exact_match", "ter"]
    assert score.main(["task=text2text", *files, "metric=tar"]) == 2
    assert "did you mean ter?" in capsys.readouterr().err


def write_backbone(folder: Path, family: str) -> str:
    tokenizer = tiny_text.bart_tokenizer()
    tokenizer.save_pretrained(folder)
    make: Any = {"bart": tiny_text.bart, "roberta": lambda size: tiny_text.roberta(size, 2)}
    make[family](len(tokenizer)).save_pretrained(folder)
    return f"backbone.path={folder}"


@pytest.mark.parametrize("family", ["bart", "roberta"])
def test_from_a_file_to_the_same_scores_in_evaluation(
    family: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random.seed(0)
    words = PAIRS if family == "bart" else REVIEWS
    more = ["evaluation.decoding.max_length=12", "metric=[chrf,ter]"] if family == "bart" else []
    backbone = write_backbone(folder / family, family)
    assert call(cli.train, monkeypatch, *words, *TINY, *more, backbone) == 0
    (run,) = (folder / "outputs").glob("*/*/*")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["primary"] == ("test/chrf" if family == "bart" else "test/accuracy")
    found = evaluate(run)
    assert found == {name: pytest.approx(metrics[f"test/{name}"], abs=1e-5) for name in found}
    record = json.loads((run / "split.json").read_text())
    assert record["seed"] == 0
    rows = [json.loads(line) for line in (run / "predictions/test.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(n) for n in record["rows"]["test"]]
    if family == "roberta":
        assert {row["reference"] for row in rows} <= {"bad", "fair", "good"}
        assert json.loads((run / "delta.json").read_text())["labels"] == ["bad", "fair", "good"]
        assert load(run).task.keywords["labels"] == ["bad", "fair", "good"]
    with Path("pairs.csv").open("a") as a, Path("reviews.csv").open("a") as b:
        a.write("x,y\n")
        b.write("x,good\n")
    with pytest.raises(UserError, match=r"the test data changed after the run in .* was trained"):
        evaluate(run)
