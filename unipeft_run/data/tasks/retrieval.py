"""Retrieval: find the image or video that a text describes, and the reverse."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unipeft_run.config.types import Count
from unipeft_run.data.tasks.base import Kind
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.images import ImageTask
from unipeft_run.data.tasks.splits import Splits
from unipeft_run.data.text_encoder import check_length, shortest_length
from unipeft_run.errors import UserError
from unipeft_run.evaluation.metrics import Scores
from unipeft_run.evaluation.metrics.by_name import is_lower_better
from unipeft_run.evaluation.metrics.retrieval import (
    METRICS,
    best_videos,
    build_features,
    retrieval,
)

if TYPE_CHECKING:  # these take long to import
    from datasets import Dataset
    from PIL.Image import Image

Pair = tuple[Any, Any]  # the features of a text and of its video
Paragraphs = Literal["all", "evaluation", "none"]


@dataclass(kw_only=True)
class Retrieval(ImageTask):
    """Retrieval between texts and images, or videos as lists of frames.

    Rows with the same id, or without ids the same images, describe the same video. `paragraphs`:
    join their texts to one text per video, in all splits, in evaluation only, or never. Otherwise a
    video has several texts. At most `frames` frames of a video are used, evenly spread. Lengths are
    in tokens and include special tokens. `t2v` metrics search the video of a text, `v2t` metrics
    the text of a video.
    """

    image_column: str = "images"
    text_column: str = "text"
    frames: Count = 1
    paragraphs: Paragraphs = "none"
    max_source_length: Count
    selection: str = "t2v_r1"

    kind: ClassVar[Kind] = "retrieval"
    no_predictions: ClassVar[str] = (
        "it ranks a whole collection of videos; unipeft eval RUN data=FILE ranks those of a file"
    )

    @property
    def metrics(self) -> tuple[str, ...]:
        return METRICS

    @property
    def primary(self) -> str:
        return "t2v_r1"

    @property
    def selection_rule(self) -> tuple[str, Literal["max", "min"]]:
        lower = self.selection == "loss" or is_lower_better(self.selection)
        return self.selection, "min" if lower else "max"

    @property
    def input_columns(self) -> tuple[str, ...]:
        return (self.text_column, self.image_column)

    @property
    def columns(self) -> Columns:
        keys = {self.image_column: "task.image_column", self.text_column: "task.text_column"}
        return Columns(
            (self.text_column,), identifier=self.id_column, keys=keys, images=self.image_column
        )

    def load(self, splits: Collection[str] | None = None) -> Splits:
        """Load `splits`, by default all, with texts joined to paragraphs. Raises `UserError`."""
        loaded = self._source.load(self._split_names(splits), self.columns, {})
        return {
            name: _first_rows(self._prepare_split(dataset, name), self._limits().get(name))
            for name, dataset in loaded.items()
        }

    def load_file(self, file: Path) -> Dataset:
        dataset = super().load_file(file)
        joined = self.paragraphs != "none"
        return self._join_paragraphs(dataset, str(file)) if joined else dataset

    def _prepare_split(self, dataset: Dataset, split: str) -> Dataset:
        joined = {"all": True, "evaluation": split != "train", "none": False}[self.paragraphs]
        return self._join_paragraphs(dataset, f"the {split} data") if joined else dataset

    def _join_paragraphs(self, dataset: Dataset, where: str) -> Dataset:
        if self.id_column not in dataset.column_names:
            raise UserError(
                f"task.paragraphs={self.paragraphs} joins the texts of a video, and {where} "
                f"has no column {self.id_column!r} of ids (texts or whole numbers): name it "
                "with task.id_column, or give task.paragraphs=none if every row is a different "
                "video"
            )
        from unipeft_run.data.images.paragraphs import join_texts

        return join_texts(dataset, self.text_column, self.id_column)

    def references(self, dataset: Dataset) -> list[int]:
        """Return the number of each row's video, in the order of their first rows.

        Without ids, rows with the same images describe the same video.
        """
        from unipeft_run.data.images.videos import identify_videos

        has_ids = self.id_column in dataset.column_names
        videos = dataset[self.id_column] if has_ids else identify_videos(dataset)
        numbers: dict[str, int] = {}
        return [numbers.setdefault(video, len(numbers)) for video in videos]

    def score(self, predictions: Sequence[Pair], references: Sequence[int]) -> Scores:
        """Compute recalls and median ranks of the features of every row's text and video."""
        return retrieval(build_features(predictions, references))

    def name_predictions(self, predictions: Sequence[Pair], dataset: Dataset) -> list[Any]:
        """Return the id of the most similar video of every text."""
        references = self.references(dataset)
        features = build_features(predictions, references)
        names = self._video_names(references, dataset)
        return [names[number] for number in best_videos(features)]

    def name_references(self, references: Sequence[int], dataset: Dataset) -> list[Any]:
        """Return the id of the video of every text."""
        names = self._video_names(references, dataset)
        return [names[number] for number in references]

    def _video_names(self, references: Sequence[int], dataset: Dataset) -> list[str]:
        """Return the id of every video, or without ids that of its first row."""
        has_ids = self.id_column in dataset.column_names
        ids = dataset[self.id_column] if has_ids else self.ids(dataset)
        names: dict[int, str] = {}
        for number, row_id in zip(references, ids, strict=True):
            names.setdefault(number, row_id)
        return list(names.values())

    @property
    def baseline_name(self) -> str:
        return "mean colours of words and videos"

    def baseline(self, splits: Splits) -> list[Pair]:
        from unipeft_run.data.images.colours import word_colours

        return word_colours(splits["train"], splits["test"], self.text_column)

    def prepare(self, image: Image) -> Image:
        """Resize and take a centre crop: frames are the same in training and evaluation."""
        from unipeft_run.data.images.transforms import resize_and_crop

        return resize_and_crop(image, self.resize, self.image_size)

    @property
    def _most_frames(self) -> int | None:
        return self.frames

    def _encode_others(
        self, batch: Mapping[str, list[Any]], tokenizer: Any
    ) -> dict[str, list[Any]]:
        ids = self.encode_texts(batch[self.text_column], tokenizer)
        return {"input_ids": ids, "labels": [0] * len(ids)}

    def encode_texts(self, texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
        """Return the token ids of `texts`. Raises `UserError` for too short a length."""
        from unipeft_run.data.text_encoder import TextEncoder

        length = self.max_source_length
        check_length("task.max_source_length", length, shortest_length(tokenizer))
        return TextEncoder(tokenizer).encode(texts, max_length=length)

    def _cache_key(self, tokenizer: Any) -> dict[str, Any]:
        from unipeft_run.data.encoding import tokenizer_hash

        return {
            "size": (self.resize, self.image_size),
            "length": self.max_source_length,
            "text": self.text_column,
            "tokenizer": tokenizer_hash(tokenizer),
        }


def _first_rows(dataset: Dataset, limit: int | None) -> Dataset:
    few = limit is not None and limit < len(dataset)
    return dataset.select(range(limit or 0)) if few else dataset
