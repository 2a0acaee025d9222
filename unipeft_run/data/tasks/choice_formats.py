"""The formats in which data sets store multiple-choice questions, as rows of `FORMATS`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.messages import describe_value, list_names, printable
from unipeft_run.data.tasks.questions import Question, as_dataset, interleave
from unipeft_run.errors import UserError

if TYPE_CHECKING:  # takes seconds to import
    from datasets import Dataset

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """How a data set stores a question.

    Args:
        text, lists: columns of texts, and of lists of texts.
        read: returns the question and the choices of a row.
        label: the column with the right choice, read as a word.
        find: returns the place of the right choice, given its label and the row.
        task: the column that names the test, if the data set holds several.
        splits: our splits -> the data set's on the hub, where the test split has no labels.
    """

    text: tuple[str, ...]
    read: Callable[[Row], tuple[str, list[str]]]
    label: str
    find: Callable[[str, Row], int]
    lists: tuple[str, ...] = ()
    task: str | None = None
    splits: Mapping[str, str] | None = None

    @property
    def columns(self) -> Columns:
        task = () if self.task is None else (self.task,)
        text = (*self.text, *self.lists, *task)
        return Columns(text, self.label, None, identifier="id", lists=self.lists)

    def question(self, row: Row, test: str) -> Question:
        """Convert a row of `test`; without a label, the answer is the first choice.

        Raises `ValueError` for a label that names no choice, and for an unusable name of a test.
        """
        text, choices = self.read(row)
        answer = self.find(row[self.label], row) if self.label in row else 0
        if not 0 <= answer < len(choices):
            raise ValueError(f"the right choice is number {answer + 1} of {len(choices)}")
        return Question(text, choices, answer, _check_test(row[self.task]) if self.task else test)

    def convert(self, dataset: Dataset, test: str, limit: int | None = None) -> Dataset:
        """Convert `dataset` to the columns of `Question`, and `id` if it has one.

        Several tests take turns; the first `limit` questions are kept. Raises `UserError`.
        """
        questions = []
        for number, row in enumerate(dataset, start=1):
            try:
                questions.append(self.question(row, test))  # type: ignore[arg-type]
            except ValueError as error:
                raise UserError(f"{test}, example {number}: {error}") from None
        ids = list(dataset["id"]) if "id" in dataset.column_names else None
        order = interleave([question.task for question in questions])[:limit]
        chosen = [questions[place] for place in order]
        return as_dataset(chosen, None if ids is None else [ids[place] for place in order])


def _check_test(name: str) -> str:
    """Return the name of a test, which metrics and a file of predictions are named after."""
    if not TEST_NAME.fullmatch(name):
        raise ValueError(
            f"{describe_value(name)} cannot name a test: give at most 80 letters, digits, "
            "spaces, _, -, + or ., the first one not a dot"
        )
    return name


def _from(first: int) -> Callable[[str, Row], int]:
    """Read the label as a number that counts choices from `first`."""

    def find(label: str, row: Row) -> int:
        try:
            return int(label) - first
        except ValueError:
            raise ValueError(f"label {_quote(label)} is not a whole number") from None

    return find


def _by_letter(label: str, row: Row) -> int:
    return _find(label, list(row["choices.label"]))


def _by_word(label: str, row: Row) -> int:
    return _find(label, TRUTH)


def _find(label: str, known: list[str]) -> int:
    if label not in known:
        raise ValueError(f"label {_quote(label)} is none of {list_names(known)}")
    return known.index(label)


def _quote(label: str) -> str:
    return f"'{printable(label, 40)}'"


def _columns(question: str, *choices: str) -> Callable[[Row], tuple[str, list[str]]]:
    """Read choices that have a column each, or one column of lists."""

    def read(row: Row) -> tuple[str, list[str]]:
        found = [row[name] for name in choices]
        return question.format_map(row), list(found[0]) if isinstance(found[0], list) else found

    return read


TRUTH = ["true", "false"]
TEST_NAME = re.compile(r"(?!\.)[\w .+-]{1,80}")
TEST_ON_VALIDATION = {"test": "validation"}
LETTERED = ("choices.text", "choices.label")
FORMATS: Mapping[str, Format] = {
    "rows": Format(
        text=("question",),
        lists=("choices",),
        read=_columns("{question}", "choices"),
        label="answer",
        find=_from(0),
    ),
    "mixed": Format(
        text=("question",),
        lists=("choices",),
        read=_columns("{question}", "choices"),
        label="answer",
        find=_from(0),
        task="task",
    ),
    "boolq": Format(
        text=("question",),
        read=lambda row: (row["question"].rstrip("?") + "?", TRUTH),
        label="answer",
        find=_by_word,
        splits=TEST_ON_VALIDATION,
    ),
    "piqa": Format(
        text=("goal", "sol1", "sol2"),
        read=_columns("{goal}", "sol1", "sol2"),
        label="label",
        find=_from(0),
        splits=TEST_ON_VALIDATION,
    ),
    "siqa": Format(
        text=("context", "question", "answerA", "answerB", "answerC"),
        read=_columns("{context} {question}", "answerA", "answerB", "answerC"),
        label="label",
        find=_from(1),
        splits=TEST_ON_VALIDATION,
    ),
    "hellaswag": Format(
        text=("activity_label", "ctx"),
        lists=("endings",),
        read=_columns("{activity_label}: {ctx}", "endings"),
        label="label",
        find=_from(0),
        splits=TEST_ON_VALIDATION,
    ),
    "winogrande": Format(
        text=("sentence", "option1", "option2"),
        read=_columns("{sentence}", "option1", "option2"),
        label="answer",
        find=_from(1),
        splits=TEST_ON_VALIDATION,
    ),
    "arc": Format(
        text=("question",),
        lists=LETTERED,
        read=_columns("{question}", "choices.text"),
        label="answerKey",
        find=_by_letter,
    ),
    "openbookqa": Format(
        text=("question_stem",),
        lists=LETTERED,
        read=_columns("{question_stem}", "choices.text"),
        label="answerKey",
        find=_by_letter,
    ),
}
