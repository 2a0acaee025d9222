"""The cache of encoded splits.

Its Arrow files are named `{key}-{checksum}.arrow`. The key is a hash of everything that determines
the content; the checksum is that of the content and is verified before the file is read.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, List, Value
from numpy.typing import NDArray

from unipeft_run.data.cache import cache_root, writable_cache
from unipeft_run.data.fingerprint import fingerprint
from unipeft_run.errors import UserError
from unipeft_run.tracking import Progress, no_progress

if TYPE_CHECKING:  # transformers takes seconds to import; missing files are reported before that
    from transformers import PreTrainedTokenizerBase

RECIPE = 3  # increment if the same texts and tokenizer give different ids than before
BATCH = 1000
CHECKSUM = 32  # hex digits in a file's name
TOKENS = List(Value("int32"))
TOKEN_COLUMNS = ("input_ids", "labels", "choices")  # labels may also be a class
Tokenize = Callable[[Mapping[str, list[Any]]], dict[str, list[Any]]]
Advance = Callable[[int], None]  # called with the number of examples just encoded
Write = Callable[[Path, Advance], None]  # writes an Arrow file


def encode(
    dataset: Dataset,
    tokenize: Tokenize,
    tokenizer: PreTrainedTokenizerBase,
    *,
    key: Mapping[str, Any],
    description: str,
    progress: Progress = no_progress,
) -> Dataset:
    """Apply `tokenize` to `dataset` in batches; return its columns.

    A column holds token ids (a list of int32), lists of token ids, whole numbers, or floats.

    The result is a memory-mapped Arrow file in the cache, shared by all runs. `key` holds
    everything that `tokenize` depends on besides the tokenizer, such as lengths. `progress` shows
    `description` while examples are encoded. If the file is damaged, a line on stderr says so and
    the data is encoded again. Raises `UserError` if the cache cannot be written.
    """
    recipe = json.dumps({**key, "recipe": RECIPE}, sort_keys=True)
    name = digest(content_hash(dataset), tokenizer_hash(tokenizer), recipe)

    def write(file: Path, advance: Advance) -> None:
        _write_arrow(dataset, tokenize, file, advance)

    return cached(name, write, len(dataset), description, progress)


def cached(
    name: str, write: Write, examples: int, description: str, progress: Progress = no_progress
) -> Dataset:
    """Return the encoded split `name` from the cache; `write` it if it is missing or damaged."""
    folder = cache_root() / "encoded"
    for file in sorted(folder.glob(f"{name}-*.arrow")):
        if (cached := _read(file)) is not None:
            return cached
        print(f"{description}: {file} in the cache is damaged; encoding again", file=sys.stderr)
        with writable_cache():
            file.unlink(missing_ok=True)
    with progress(description, examples) as advance:
        return Dataset.from_file(str(_write(write, folder, name, advance)))


def _read(file: Path) -> Dataset | None:
    """Return the data set in `file`; None if its content does not match the checksum."""
    try:
        if fingerprint(file)[:CHECKSUM] == file.stem.partition("-")[2]:
            return Dataset.from_file(str(file))
    except (UserError, OSError, pa.ArrowException):
        pass
    return None


def _write(write: Write, folder: Path, name: str, advance: Advance) -> Path:
    """Write a file in a temporary folder; move it to `folder` once it is complete."""
    with writable_cache():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder) as scratch:
            file = Path(scratch, "encoded.arrow")
            write(file, advance)
            return file.rename(folder / f"{name}-{fingerprint(file)[:CHECKSUM]}.arrow")


def _write_arrow(dataset: Dataset, tokenize: Tokenize, file: Path, advance: Advance) -> None:
    first = tokenize(dataset[:1])
    schema = Features({name: _feature(values[0]) for name, values in first.items()}).arrow_schema
    with (
        pa.OSFile(str(file), "wb") as sink,
        pa.ipc.new_stream(sink, schema) as writer,
    ):
        for start in range(0, len(dataset), BATCH):
            columns = tokenize(dataset[start : start + BATCH])
            arrays = [pa.array(columns[field.name], field.type) for field in schema]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            advance(len(arrays[0]))


def _feature(value: Any) -> Any:
    """Return the feature of a column with this value."""
    if not isinstance(value, list):
        return Value("float64" if isinstance(value, float) else "int64")
    return List(_feature(value[0])) if value and isinstance(value[0], list) else TOKENS


def content_hash(dataset: Dataset) -> str:
    """Hash the examples of `dataset`, independently of where they were read from."""
    digest = hashlib.sha256(repr(dataset.features).encode())
    for table in dataset.with_format("arrow").iter(batch_size=10 * BATCH):
        compact = table.take(np.arange(len(table)))  # a slice would include parts of other rows
        for batch in compact.combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash everything that determines the ids of a text; calls with truncation do not change it."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
    for transient in ("truncation", "padding"):
        state.pop(transient, None)
    sides = tokenizer.truncation_side, tokenizer.special_tokens_map
    return digest(json.dumps(state, sort_keys=True), repr(sides))


def lengths(encoded: Dataset, column: str) -> NDArray[np.int64]:
    """Return the number of tokens in `column` of every example."""
    values = encoded.with_format("arrow")[:].column(column)
    return np.asarray(pc.list_value_length(values).to_numpy(), dtype=np.int64)


def find_largest_id(encoded: Dataset) -> int:
    """Return the largest token id in the texts of all examples; 0 if there are none."""
    names = [name for name in TOKEN_COLUMNS if isinstance(encoded.features.get(name), List)]
    columns = encoded.select_columns(names).with_format("arrow")[:].columns
    return max((_find_largest(column) for column in columns), default=0)


def _find_largest(values: pa.ChunkedArray) -> int:
    """Return the largest number in nested lists; 0 if they are empty."""
    while pa.types.is_list(values.type):
        values = pc.list_flatten(values)
    largest: int | None = pc.max(values).as_py()
    return largest or 0


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
