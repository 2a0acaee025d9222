"""Multiple choice for causal models: name the right choice, or compare likelihoods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unipeft_run.config.messages import unknown_choice
from unipeft_run.data.tasks.causal import UNLIMITED, CausalTask, Decision, most_frequent
from unipeft_run.data.tasks.choice_formats import FORMATS, Format
from unipeft_run.data.tasks.choice_wordings import wording_of
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.questions import Question, as_columns, read_questions
from unipeft_run.data.tasks.source import DataSource, Source
from unipeft_run.data.tasks.splits import Splits
from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics import Scores
from unipeft_run.evaluation.metrics.choices import Likelihoods, Reference, score_choices

if TYPE_CHECKING:  # these take seconds to import, and unipeft score needs neither
    from datasets import Dataset

    from unipeft_run.data.text_encoder import TextEncoder

PROMPT_FIELDS, RESPONSE_FIELDS = ("instruction", "question", "choices"), ("answer", "choice")


@dataclass(kw_only=True)
class MultipleChoice(CausalTask):
    """Questions with one right choice; the data may hold several tests.

    `format` names a row of `FORMATS`: how the data stores a question. Prompts have the fields
    {instruction} (the question with numbered choices), {question} and {choices}; responses {answer}
    (the word of the right choice, such as answer2) and {choice} (its text). With `by: generation`,
    the first answer word in the generated text counts; with `by: likelihood`, the choice whose
    response is the most likely, without the end token.
    """

    format: str = "rows"
    by: Literal["generation", "likelihood"] = "generation"
    selection: str = "accuracy"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(unknown_choice("task.format", self.format, FORMATS))
        super().__post_init__()

    @property
    def decides_by(self) -> Decision:
        return self.by

    @property
    def template_fields(self) -> tuple[Sequence[str], Sequence[str]]:
        return PROMPT_FIELDS, RESPONSE_FIELDS

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy", *(["accuracy_normalised"] if self.by == "likelihood" else []))

    @property
    def primary(self) -> str:
        return "accuracy"

    @property
    def columns(self) -> Columns:
        return self._format.columns

    def load(self, splits: Collection[str] | None = None) -> Splits:
        """Load `splits` as questions, with the columns of `Question`; several tests take turns."""
        loaded = super().load(splits)
        limits = super()._limits()
        convert = partial(self._format.convert, test=self.name)
        return {name: convert(data, limit=limits.get(name)) for name, data in loaded.items()}

    def load_file(self, file: Path) -> Dataset:
        return self._format.convert(super().load_file(file), self.name)

    def references(self, dataset: Dataset) -> list[Reference]:
        return [_refer(question) for question in read_questions(dataset[:])]

    def name_predictions(self, predictions: Sequence[Any], dataset: Dataset) -> list[str]:
        """Return generated texts as they are, and the word of the most likely choice."""
        pairs = zip(predictions, self.references(dataset), strict=True)
        return [r.words[p.best()] if isinstance(p, Likelihoods) else p for p, r in pairs]

    def name_references(self, references: Sequence[Any], dataset: Dataset) -> list[str]:
        return [reference.word for reference in references]

    def parts(self, dataset: Dataset) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for index, test in enumerate(dataset["task"]):
            found[test].append(index)
        return dict(found) if len(found) > 1 else {}

    def score(self, predictions: Sequence[Any], references: Sequence[Any]) -> Scores:
        """Compute accuracy in percent; with several tests that of each, and their plain mean.

        References may be answer words alone, as in a file for `unipeft score`.
        """
        known = [Reference.of_word(r) if isinstance(r, str) else r for r in references]
        return score_choices(predictions, known)

    @property
    def baseline_name(self) -> str:
        return "the most frequent answer of each test"

    def baseline(self, splits: Splits) -> list[str]:
        seen: dict[str, list[str]] = defaultdict(list)
        for reference in self.references(splits["train"]):
            seen[reference.task].append(reference.word)
        frequent = {test: most_frequent(words) for test, words in seen.items()}
        return [frequent.get(test, "") for test in splits["test"]["task"]]

    def complete_inputs(self, inputs: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Convert new examples to questions; the first choice is a placeholder for the answer."""
        rows = zip(*inputs.values(), strict=True)
        named = [dict(zip(inputs, values, strict=True)) for values in rows]
        return as_columns(self._questions(named))

    def _questions(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Question]:
        for number, row in enumerate(rows, start=1):
            try:
                yield self._format.question(row, self.name)
            except ValueError as error:
                raise UserError(f"input {number}: {error}") from None

    def fill_fields(self, batch: Mapping[str, list[Any]]) -> Mapping[str, list[str]]:
        rows = [_fields(question) for question in read_questions(batch)]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def inputs_of(self, encoded: Mapping[str, list[Any]]) -> list[Any]:
        """Return the ids of each prompt, or a list of the prompt and the choices to compare."""
        prompts = super().inputs_of(encoded)
        if self.by == "generation":
            return prompts
        return [[p, *choices] for p, choices in zip(prompts, encoded["choices"], strict=True)]

    @property
    def _format(self) -> Format:
        return FORMATS[self.format]

    @property
    def _source(self) -> DataSource:
        names = self._format.splits or {}
        return Source(self.name, self.path, self.mini, self.hub, self.optional_splits, names)

    def _limits(self) -> dict[str, int | None]:
        """Return no limits for several tests: `load` then keeps equally many questions of each."""
        return {} if self._format.task else super()._limits()

    def _cache_key(self, train: bool) -> dict[str, Any]:
        return {**super()._cache_key(train), "by": self.by, "choices": "whole"}

    def _tokenize(
        self, batch: Mapping[str, list[Any]], encoder: TextEncoder, train: bool
    ) -> dict[str, list[Any]]:
        encoded = super()._tokenize(batch, encoder, train)
        if self.by == "likelihood":
            encoded["choices"] = self.encode_choices(batch, encoder)
        return encoded

    def encode_choices(
        self, batch: Mapping[str, list[Any]], encoder: TextEncoder
    ) -> list[list[list[int]]]:
        """Return the ids of the response with each choice, for each row of `batch`.

        They are whole and have no end token. Raises `UserError` for an empty one.
        """
        return [self._encode_choices(question, encoder) for question in read_questions(batch)]

    def _encode_choices(self, question: Question, encoder: TextEncoder) -> list[list[int]]:
        each = [question._replace(answer=place) for place in range(len(question.choices))]
        texts = [self._templates[1].fill_one(_fields(one)) for one in each]
        found = encoder.encode(texts, max_length=UNLIMITED, special=False)
        if not all(found):
            raise UserError(
                f"task.by=likelihood compares texts, and a choice of {question.question!r} is empty"
            )
        return found


def _fields(question: Question) -> dict[str, str]:
    """Return the values of the templates' fields."""
    wording, answer = wording_of(question.task), question.answer
    return {
        "instruction": wording.instruct(question),
        "question": question.question,
        "choices": wording.list_choices(question),
        "answer": wording.words(question)[answer],
        "choice": question.choices[answer],
    }


def _refer(question: Question) -> Reference:
    wording = wording_of(question.task)
    words, searched = wording.words(question), wording.searched_words(question)
    return Reference(question.answer, words, searched, question.task)
