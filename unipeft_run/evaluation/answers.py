"""Extract the answer from a generated text, by rules that are chosen by name in YAML.

The rules `first_match`, `last_number` and `first_letter` are those of LLM-Adapters (Hu et al.,
2023). A rule returns None if the text has no answer, which counts as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from unipeft_run.evaluation.metrics.scores import Scores, mean

NUMBER = re.compile(r"-?\d+\.?\d*")
LETTER = re.compile(r"[A-E]")
TOLERANCE = 0.001  # between equal numbers


def first_match(text: str, words: Sequence[str]) -> str | None:
    """Return the answer word that occurs first in `text`; upper and lower case differ."""
    longest_first = sorted(words, key=len, reverse=True)
    found = re.search("|".join(map(re.escape, longest_first)), text)
    return found.group() if found else None


def last_number(text: str) -> float | None:
    """Return the last number in `text`; commas are removed first."""
    numbers = NUMBER.findall(text.replace(",", ""))
    return float(numbers[-1]) if numbers else None


def first_letter(text: str) -> str | None:
    """Return the first capital letter from A to E in `text`."""
    found = LETTER.search(text)
    return found.group() if found else None


def text_after(text: str, marker: str) -> str | None:
    """Return the text after the last `marker`, without surrounding space."""
    _, found, rest = text.rpartition(marker)
    return rest.strip() if found else None


RuleName = Literal["first_match", "last_number", "first_letter", "text_after"]


@dataclass(frozen=True)
class AnswerRule:
    """A rule with its settings: `words` for `first_match`, `marker` for `text_after`."""

    name: RuleName
    words: Sequence[str] = ()
    marker: str = ""

    def extract(self, text: str) -> str | float | None:
        """Return the answer in `text`; None if there is none."""
        rules: dict[RuleName, Callable[[], str | float | None]] = {
            "first_match": lambda: first_match(text, self.words),
            "last_number": lambda: last_number(text),
            "first_letter": lambda: first_letter(text),
            "text_after": lambda: text_after(text, self.marker),
        }
        return rules[self.name]()

    def agree(self, prediction: str, reference: str) -> bool:
        """Return whether two texts have the same answer; no answer is wrong."""
        ours, theirs = self.extract(prediction), self.extract(reference)
        if isinstance(ours, float) and isinstance(theirs, float):
            return abs(ours - theirs) <= TOLERANCE
        return ours is not None and ours == theirs


def score_answers(
    rule: AnswerRule, predictions: Sequence[str], references: Sequence[str]
) -> Scores:
    """Compute the percentage of predictions that have the same answer as their reference."""
    pairs = zip(predictions, references, strict=True)
    hits = [100.0 * rule.agree(prediction, reference) for prediction, reference in pairs]
    signature = f"accuracy (%): answers by {rule.name}"
    return Scores(
        {"accuracy": mean(hits)}, hits, dict.fromkeys(("accuracy", "per_example"), signature)
    )
