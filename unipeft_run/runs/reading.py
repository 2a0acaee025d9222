"""Bounded reading of untrusted files: size, depth and types are limited, nothing is executed.

`read_bytes` opens any file safely; `read_json` and `read_yaml` return plain data; `read_records`
iterates over a JSON-lines file. Imports nothing heavy.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any

import yaml

from unipeft_run.errors import UserError
from unipeft_run.runs.printable import printable

MIB = 1 << 20
DOCUMENT_BYTES = MIB  # config.yaml, status.json, metrics.json, ...
RECORDS_BYTES, LINE_BYTES = 64 * MIB, MIB  # train.jsonl, predictions
DEPTH, NODES = 40, 50_000
LARGEST_INTEGER = 1 << 63
SECTION_BYTES = 4096  # of config.yaml; longer ones are not cached
SECTION_START = re.compile(rb"(?<=\n)(?=[A-Za-z_])")
SECTION_KEY = re.compile(rb"([A-Za-z_]+):(?:[ \n]|$)")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DECODER = json.JSONDecoder(parse_constant=lambda _: None)  # NaN and infinities are not valid JSON
# libyaml refuses the escape that PyYAML writes for a path that is not UTF-8
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class UnreadableFile(UserError):
    """A file that is missing, damaged, too large or not regular; the message says which."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; never blocks on a FIFO. Raises OSError, UnreadableFile."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableFile("is not a regular file")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, limit: int = DOCUMENT_BYTES) -> bytes:
    """Return the content of a regular file of at most `limit` bytes. Raises `UnreadableFile`."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size or limit  # files in /proc have no size
            content = file.read(min(size, limit) + 1)
    except OSError as error:
        raise UnreadableFile(f"{path.name}: {error.strerror}") from error
    except UnreadableFile as error:
        raise UnreadableFile(f"{path.name} {error}") from None
    if len(content) > limit:
        raise UnreadableFile(f"{path.name} is larger than {limit >> 20} MiB")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`. Raises `UnreadableFile` for anything else."""
    content = read_bytes(path)
    try:
        return _object(parse_json(content))
    except ValueError as error:
        raise _damaged(path, error) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the YAML mapping in `path` as plain data. Raises `UnreadableFile` for anything else.

    Aliases are refused: no run writes them, and a few lines of them can expand to gigabytes.
    """
    content = SURROGATE.sub(rb"\\uFFFD", read_bytes(path))
    try:
        sections = _load_sections(content)
        return sections if sections is not None else _object(_load_yaml(content))
    except (ValueError, OverflowError, RecursionError, yaml.YAMLError) as error:
        raise _damaged(path, error) from None


def _load_sections(content: bytes) -> dict[str, Any] | None:
    """Parse a mapping one top-level key at a time; None if that may differ from parsing it whole.

    Sections are cached, since many runs share them: 5,000 configurations take a fraction of a
    second instead of several.
    """
    found: dict[str, Any] = {}
    for section in SECTION_START.split(content):
        if len(section) > SECTION_BYTES or (loaded := _load_section(section)) is None:
            return None
        found.update(loaded)
    return found


@lru_cache(maxsize=8192)
def _load_section(section: bytes) -> dict[str, Any] | None:
    """Return the one-key mapping in `section`, else None. Cached: callers must not change it."""
    key = SECTION_KEY.match(section)
    try:
        loaded = _load_yaml(section) if key else None
    except (ValueError, OverflowError, RecursionError, yaml.YAMLError):
        return None
    name = key[1].decode() if key else None
    return loaded if isinstance(loaded, dict) and list(loaded) == [name] else None


def _load_yaml(content: bytes) -> Any:
    depth = 0
    for number, event in enumerate(yaml.parse(content, LOADER)):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH or number > NODES:
            raise ValueError("it is nested too deeply or too long")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it holds YAML aliases")
    return plain_data(yaml.load(content, LOADER), strict=True)


def read_records(path: Path, limit: int = RECORDS_BYTES) -> Iterator[dict[str, Any]]:
    """Yield the JSON object on each line of `path`; damaged and overlong lines are skipped.

    Reads at most `limit` bytes. A missing file has no records. Raises `UnreadableFile`.
    """
    try:
        with open_regular(path) as file:
            while limit > 0 and (line := file.readline(LINE_BYTES)):
                limit -= len(line)
                if (record := parse_record(line)) is not None:
                    yield record
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnreadableFile(f"{path.name}: {error.strerror}") from error
    except UnreadableFile as error:
        raise UnreadableFile(f"{path.name} {error}") from None


def read_last_lines(path: Path, size: int) -> list[bytes]:
    """Return the lines in the last `size` bytes of `path`; none if it cannot be read."""
    with suppress(OSError, ValueError), open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        return file.read(size).splitlines()
    return []


def parse_record(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object on a line, or None if it holds none."""
    try:
        return _object(parse_json(line))
    except ValueError:
        return None


def parse_json(content: bytes) -> Any:
    """Parse JSON as bounded plain data; NaN and infinities become null. Raises ValueError."""
    try:
        return plain_data(DECODER.decode(content.decode("utf-8-sig")))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def plain_data(data: Any, *, strict: bool = False) -> Any:
    """Return a copy of `data` that is safe to walk: bounded, with JSON's types and finite numbers.

    Numbers out of range become null. With `strict` they raise ValueError, as other types and keys
    that are not strings always do.
    """
    budget = [NODES]

    def copy(node: Any, depth: int) -> Any:
        budget[0] -= 1
        if depth > DEPTH or budget[0] < 0:
            raise ValueError("it is nested too deeply or too long")
        if node is None or isinstance(node, str | bool):
            return node
        if isinstance(node, int | float):
            return _in_range(node, strict)
        if isinstance(node, list):
            return [copy(value, depth + 1) for value in node]
        if isinstance(node, dict):
            return {_key(key): copy(value, depth + 1) for key, value in node.items()}
        raise ValueError(f"{printable(node, 40)} is a {type(node).__name__}")

    return copy(data, 0)


def _in_range(number: float, strict: bool) -> float | None:
    known = math.isfinite(number) if isinstance(number, float) else abs(number) < LARGEST_INTEGER
    if strict and not known:
        raise ValueError("it holds a number out of range")
    return number if known else None


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError(f"the key {printable(key, 40)} is a {type(key).__name__}")
    return key


def _object(data: Any) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError("it does not hold a mapping")
    return dict(data)


def _damaged(path: Path, error: Exception) -> UnreadableFile:
    lines = str(error).splitlines() or [type(error).__name__]
    return UnreadableFile(f"{path.name} is damaged: {printable(lines[0], 120)}")
