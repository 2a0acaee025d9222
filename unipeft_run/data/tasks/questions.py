"""Multiple-choice questions, whatever data set they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # takes seconds to import
    from datasets import Dataset


class Question(NamedTuple):
    """A question with its choices, the place of the right one, and the test that it belongs to."""

    question: str
    choices: list[str]
    answer: int
    task: str


def read_questions(batch: Mapping[str, list[Any]]) -> Iterator[Question]:
    """Yield the questions in columns that `as_columns` has written."""
    for values in zip(*(batch[name] for name in Question._fields), strict=True):
        yield Question(*values)


def as_columns(questions: Iterable[Question]) -> dict[str, list[Any]]:
    """Return the fields of `questions` as columns."""
    columns = zip(*questions, strict=True)
    return {name: list(values) for name, values in zip(Question._fields, columns, strict=True)}


def as_dataset(questions: Sequence[Question], ids: Sequence[str] | None) -> Dataset:
    """Return a data set of `questions`, with a column `id` if there are ids."""
    from datasets import Dataset, Features, List, Value

    text = Value("string")
    kinds: dict[str, Any] = {"question": text, "choices": List(text), "answer": Value("int64")}
    kinds["task"] = text
    columns = as_columns(questions)
    if ids is not None:
        columns["id"], kinds["id"] = list(ids), text
    return Dataset.from_dict(columns, Features(kinds))


def interleave(tests: Sequence[str]) -> list[int]:
    """Return an order of examples in which the tests take turns, each in its own order."""
    seen: dict[str, int] = {}
    turns = []
    for index, test in enumerate(tests):
        turns.append((seen.setdefault(test, 0), index))
        seen[test] += 1
    return [index for _, index in sorted(turns)]
