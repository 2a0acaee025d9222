"""Join the texts of one video."""

from __future__ import annotations

import pyarrow as pa
from datasets import Dataset


def join_texts(dataset: Dataset, text: str, identifier: str) -> Dataset:
    """Return one row for each value of `identifier`, with the texts of its rows joined by spaces.

    The other columns are those of the first row.
    """
    table = dataset.with_format("arrow")[:]
    first: dict[str, int] = {}
    texts: dict[str, list[str]] = {}
    columns = table.column(identifier).to_pylist(), table.column(text).to_pylist()
    for row, (video, sentence) in enumerate(zip(*columns, strict=True)):
        first.setdefault(video, row)
        texts.setdefault(video, []).append(sentence.strip())
    joined = pa.array([" ".join(sentences) for sentences in texts.values()], pa.large_string())
    rows = table.take(pa.array(list(first.values()), pa.int64()))
    return Dataset(rows.set_column(rows.column_names.index(text), text, joined))
