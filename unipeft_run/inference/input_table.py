"""Read the inputs of unipeft predict from a file or stdin: whole records, and the texts in them."""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unipeft_run.data.new_inputs import check_predicts, input_columns
from unipeft_run.data.tasks.base import Task
from unipeft_run.data.tasks.columns import Columns
from unipeft_run.data.tasks.records import BYTE_ORDER_MARK, is_csv, read_records
from unipeft_run.data.tasks.split_files import SUFFIXES
from unipeft_run.errors import UserError

PLAIN = ".txt"
STDIN = "-"


@dataclass(frozen=True)
class InputTable:
    """The rows of an input file.

    `records`: every row as a mapping, with all its columns. `texts`: input column of the task -> a
    text per row; names of images include the folder. `suffix`: the kind of file, such as `.csv`.
    """

    records: Sequence[Mapping[str, Any]]
    texts: Mapping[str, list[str]]
    suffix: str

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in order of appearance."""
        return list(dict.fromkeys(name for record in self.records for name in record))


def read_inputs(name: str, task: Task) -> InputTable:
    """Read the file `name`, or stdin if it is "-". Raises UserError, also for an empty file.

    A .txt file holds one text per line. The format of stdin is guessed from its first line. Images
    are named relative to the folder of the file; on stdin, to the current folder.
    """
    check_predicts(task)
    if name == STDIN:
        with _stdin_as_file(task) as file:
            return _read(file, task)
    file = Path(os.path.expanduser(name))
    table = _read(file, task)
    images = task.columns.images
    return table if images is None else _with_folder(table, images, file.parent)


def _with_folder(table: InputTable, column: str, folder: Path) -> InputTable:
    """Make the names of images in `column` relative to the current folder instead of `folder`."""
    named = [str(folder / os.path.expanduser(name)) for name in table.texts[column]]
    return replace(table, texts={**table.texts, column: named})


def _read(file: Path, task: Task) -> InputTable:
    if file.suffix == PLAIN:
        return _read_lines(file, task)
    if not file.name.endswith(SUFFIXES):
        known = ", ".join((PLAIN, *SUFFIXES))
        raise UserError(f"{file}: its name must end in one of {known}")
    from unipeft_run.data.tasks.loading import load_file

    names, own = input_columns(task), task.columns
    lists = tuple(name for name in own.lists if name in names)
    columns = Columns(names, other_names=own.other_names, lists=lists)
    dataset = load_file(file, columns)
    texts = {column: list(dataset[column]) for column in input_columns(task)}
    suffix = file.suffix if file.suffix == ".parquet" else ".csv" if is_csv(file) else ".jsonl"
    return InputTable(_read_all_columns(file), texts, suffix)


def _read_all_columns(file: Path) -> list[Mapping[str, Any]]:
    if file.suffix != ".parquet":
        return [record for _, record in read_records(file)]
    import pyarrow.parquet as pq

    rows: list[Mapping[str, Any]] = pq.read_table(file).to_pylist()
    return rows


def _read_lines(file: Path, task: Task) -> InputTable:
    if len(input_columns(task)) > 1:
        names = " and ".join(input_columns(task))
        raise UserError(f"{file}: task {task.name} reads {names}; give .jsonl or .csv with them")
    try:
        content = file.read_bytes().removeprefix(BYTE_ORDER_MARK)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    texts = [_decode(line, f"{file}, line {n}") for n, line in enumerate(_split(content), 1)]
    if not texts:
        raise UserError(f"{file} has no examples")
    column = input_columns(task)[0]
    return InputTable([{column: text} for text in texts], {column: texts}, PLAIN)


def _split(content: bytes) -> list[bytes]:
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    return [line.removesuffix(b"\r") for line in lines]


def _decode(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 (byte {error.start + 1})") from None


@contextmanager
def _stdin_as_file(task: Task) -> Iterator[Path]:
    """Yield a temporary file with the content of stdin; error messages name stdin instead."""
    content = sys.stdin.buffer.read()
    with tempfile.TemporaryDirectory(prefix="unipeft-stdin-") as folder:
        file = Path(folder, f"stdin{_guess_suffix(content, task)}")
        file.write_bytes(content)
        try:
            yield file
        except UserError as error:
            raise UserError(str(error).replace(str(file), "stdin")) from None


def _guess_suffix(content: bytes, task: Task) -> str:
    """Guess the format: a brace means JSON Lines, a header with the task's columns CSV or TSV."""
    first = content.removeprefix(BYTE_ORDER_MARK).lstrip().partition(b"\n")[0]
    line = first.decode("utf-8", "replace").strip()
    if line.startswith("{"):
        return ".jsonl"
    readers: dict[str, Callable[[str], list[str]]] = {
        ".csv": lambda text: next(csv.reader([text]), []),
        ".tsv": lambda text: text.split("\t"),
    }
    for suffix, read in readers.items():
        names = {name.strip() for name in read(line)}
        if all(names & set(task.columns.spellings(name)) for name in input_columns(task)):
            return suffix
    return PLAIN
