"""Commonsense reasoning: one mixture of training data, eight tests (Hu et al., 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unipeft_run.data.tasks.choice_formats import FORMATS
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.multiple_choice import MultipleChoice
from unipeft_run.data.tasks.questions import Question, interleave
from unipeft_run.data.tasks.source import DataSource, Limits

if TYPE_CHECKING:  # takes seconds to import
    from datasets import Dataset

HELD_OUT = 120  # training examples for validation, as in LLM-Adapters' math recipe


@dataclass(frozen=True)
class HubTest:
    """A test on the hub: `configs` are joined for training; the last one holds the test."""

    path: str
    format: str
    configs: tuple[str | None, ...] = (None,)
    revision: str | None = None

    def load(self, name: str, split: str, task: str) -> Iterator[Dataset]:
        """Yield the questions of `split`, a data set per configuration. Raises `UserError`."""
        from unipeft_run.data.tasks.hub import load_hub
        from unipeft_run.data.tasks.loading import load_datasets

        form = FORMATS[self.format]
        theirs = (form.splits or {}).get(split, split)
        for config in self.configs if split == "train" else self.configs[-1:]:
            found = load_hub(task, path=self.path, name=config, revision=self.revision)
            where = f"{self.path}, split {theirs}"
            data = load_datasets({split: (where, found[theirs])}, form.columns, {})[split]
            yield form.convert(data, name).select_columns(list(Question._fields))


CONVERTED = "refs/convert/parquet"  # these data sets are scripts
SIZES = ("xs", "s", "m", "l", "debiased", "xl")  # 63,238 examples together, as in the 170k mixture
TESTS: Mapping[str, HubTest] = {
    "boolq": HubTest("google/boolq", "boolq"),
    "piqa": HubTest("ybisk/piqa", "piqa", revision=CONVERTED),
    "siqa": HubTest("allenai/social_i_qa", "siqa", revision=CONVERTED),
    "hellaswag": HubTest("Rowan/hellaswag", "hellaswag"),
    "winogrande": HubTest(
        "allenai/winogrande", "winogrande", tuple(f"winogrande_{size}" for size in SIZES)
    ),
    "arc_easy": HubTest("allenai/ai2_arc", "arc", ("ARC-Easy",)),
    "arc_challenge": HubTest("allenai/ai2_arc", "arc", ("ARC-Challenge",)),
    "openbookqa": HubTest("allenai/openbookqa", "openbookqa", ("main",)),
}


@dataclass(kw_only=True)
class Commonsense(MultipleChoice):
    """Eight multiple-choice tests, learnt from one mixture of their training data.

    Local data has the columns question, choices, answer (the place of the right choice, from 0) and
    task (the test). On the hub the tests are separate data sets. There, validation is the first 120
    examples of the mixture, in which the tests take turns; they are not used for training.
    """

    format: str = "mixed"

    @property
    def _source(self) -> DataSource:
        local = self.path is not None or self.mini is not None
        return super()._source if local else HubMixture(self.name)


@dataclass(frozen=True)
class HubMixture:
    """The eight tests on the hub, as questions in the format "mixed"."""

    task: str

    def load(self, splits: Sequence[str], columns: Columns, limits: Limits) -> dict[str, Dataset]:
        """Load `splits` of all tests, whatever the limits. Raises `UserError`."""
        found = {}
        if not {"train", "validation"}.isdisjoint(splits):
            mixture = self._join("train")
            found["validation"] = mixture.select(range(HELD_OUT))
            found["train"] = mixture.select(range(HELD_OUT, len(mixture)))
        if "test" in splits:
            found["test"] = self._join("test")
        return {split: found[split] for split in splits}

    def fingerprints(self, splits: Sequence[str]) -> dict[str, str]:
        """Return no hashes, as for other data from the hub."""
        return {}

    def _join(self, split: str) -> Dataset:
        from datasets import concatenate_datasets

        parts = [part for name, test in TESTS.items() for part in test.load(name, split, self.task)]
        joined = concatenate_datasets(parts)
        return joined.select(interleave(joined["task"]))
