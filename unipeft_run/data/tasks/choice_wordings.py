"""How each multiple-choice test asks, in the words of LLM-Adapters (Hu et al., 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unipeft_run.data.tasks.questions import Question


@dataclass(frozen=True)
class Wording:
    """An introduction, and the word that numbers the choices: "answer" for answer1, answer2, ...

    `most`: the number of answer words that a generated text is searched for. `between`: the text
    between two choices. Without `word`, the choices themselves are the answer words.
    """

    introduction: str
    word: str = ""
    most: int = 0
    between: str = " "

    def instruct(self, question: Question) -> str:
        """Return the question with its choices and the format of the answer."""
        choices = [self.list_choices(question)] if self.word else []
        answers = f"Answer format: {'/'.join(self.words(question))}"
        return "\n\n".join([f"{self.introduction}{question.question}", *choices, answers])

    def list_choices(self, question: Question) -> str:
        """Return the choices, each with its answer word."""
        words = map(str.capitalize, self.words(question))
        pairs = zip(words, question.choices, strict=True)
        return self.between.join(f"{word}: {choice}" for word, choice in pairs)

    def words(self, question: Question) -> list[str]:
        """Return the answer word of every choice."""
        return self._number(len(question.choices)) if self.word else list(question.choices)

    def searched_words(self, question: Question) -> list[str]:
        """Return the words that a generated answer is searched for."""
        count = max(self.most, len(question.choices))
        return self._number(count) if self.word else list(question.choices)

    def _number(self, count: int) -> list[str]:
        return [f"{self.word}{number}" for number in range(1, count + 1)]


QUESTION = Wording("Please choose the correct answer to the question: ", "answer", 5)
WORDINGS: Mapping[str, Wording] = {
    "boolq": Wording("Please answer the following question with true or false, question: "),
    "piqa": Wording("Please choose the correct solution to the question: ", "solution", 2, "\n\n"),
    "hellaswag": Wording(
        "Please choose the correct ending to complete the given sentence: ", "ending", 4
    ),
    "winogrande": Wording(
        "Please choose the correct answer to fill in the blank to complete the given sentence: ",
        "option",
        2,
    ),
}


def wording_of(test: str) -> Wording:
    """Return the wording of `test`; a test that is not listed asks for answer1, answer2, ..."""
    return WORDINGS.get(test, QUESTION)
