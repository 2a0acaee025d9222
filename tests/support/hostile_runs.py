"""Hostile and damaged run folders: each case changes one finished run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

Case = tuple[str, Callable[[Path], object]]  # a name, and a change to a copy of a finished run

JSON_FILES = ("status.json", "metrics.json", "train.jsonl")
FILES = ("config.yaml", *JSON_FILES)
SPARSE = 1 << 40  # bytes of a sparse file, which takes no disk space
ESCAPES = "\x1b[2J\x1b]0;owned\x07\u202e\r\n[/bold][red]\ud800\udcff"

BYTES: dict[str, bytes] = {
    "empty": b"",
    "null bytes": b"\0" * 100,
    "not UTF-8": b"\xff\xfe\x00\xd8",
    "cut off": b'{"a": ',
    "a list": b"[1, 2]",
    "a string": b'"word"',
    "a number": b"12",
    "deep lists": b"[" * 100_000,
    "deep lists, closed": b'{"step": ' + b"[" * 900 + b"]" * 900 + b"}",
    "deep mappings": b'{"a":' * 100_000,
    "many digits": b'{"step": ' + b"9" * 5000 + b', "state": "done"}',
    "a large integer": b'{"step": ' + b"9" * 400 + b', "state": "done"}',
    "a large float": b'{"step": 1e999, "total": -1e999, "state": "running"}',
    "not a number": b'{"step": NaN, "total": Infinity, "primary": "a", "a": NaN}',
    "a lone surrogate": b'{"state": "\\ud800", "error": "\\udfff", "primary": "\\ud800"}',
    "a byte-order mark": b'\xef\xbb\xbf{"state": "failed", "error": "x"}',
    "UTF-16": '{"state": "failed"}'.encode("utf-16"),
    "a long line": b'{"a": "' + b"x" * (3 << 20) + b'"}',
    "many keys": json.dumps({f"k{n}": n for n in range(60_000)}).encode(),
    "line separators": '{"state": "failed", "error": "a\u2028b\u0085c"}'.encode(),
}
YAML: dict[str, str] = {
    "tabs": "a:\n\tb: 1\n",
    "a date": "seed: 2020-01-01\ntask: {name: sst2}\n",
    "an impossible date": "seed: 2020-99-99\n",
    "bytes": "seed: !!binary aGVsbG8=\n",
    "broken bytes": "seed: !!binary '***'\n",
    "a set": "seed: !!set {a, b}\n",
    "a Python object": "seed: !!python/object/apply:os.system ['touch owned']\n",
    "a Python name": "seed: !!python/name:os.system\n",
    "an alias": "a: &a {seed: 1}\nb: *a\n",
    "a recursive alias": "a: &a [*a]\n",
    "billion laughs": "a0: &a0 [x, x]\n"
    + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)),
    "billion merges": "a0: &a0 {x: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60)),
    "deep flow": "a: " + "[" * 50_000 + "]" * 50_000 + "\n",
    "deep block": "- " * 50_000 + "a\n",
    "deep sections": "".join(f"{' ' * n}a:\n" for n in range(800)),
    "an infinite number": "seed: .inf\noptim: {lr: .nan}\n",
    "a large number": "seed: " + "9" * 4000 + "\n",
    "many digits in YAML": "seed: " + "9" * 9000 + "\n",
    "sexagesimals": "seed: " + ":".join(["59"] * 5000) + "\n",
    "keys that are no strings": "1: a\nnull: b\n2.5: c\ntrue: d\n",
    "a mapping as a key": "? {a: b}\n: c\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "a directive": "%YAML 9.9\n---\na: 1\n",
    "markup": "seed: '[/bold]'\nmethod: '[red]x[/'\ntask: {name: '[link=http://x]y'}\n",
    "escapes": 'seed: "\\e[2J\\u202e"\ntask: {name: "\\a\\b"}\n',
    "a surrogate": 'seed: "\\uDCFF"\ntask: {name: x}\n',
    "sections of other types": "task: 3\nbackbone: [1]\nrecipe: x\noptim: null\nseed: {a: 1}\n",
    "an expression": "seed: ${oc.env:HOME}\ntask: {name: '${task.name}'}\n",
    "a cut-off quotation": "seed: 1\nmethod: 'a\n",
    "many sections": "".join(f"k{n}: {n}\n" for n in range(60_000)),
}
JUNK: tuple[Any, ...] = (
    *(None, True, -1, 10**300, 1.5, "x", "", ESCAPES, "9" * 5000, [], [1], {}, {"a": [1]}, [[{}]]),
)
STATUS_KEYS = ("state", "step", "total", "seconds_left", "error", "heartbeat", "started")
METRIC_KEYS = ("primary", "task", "seed", "parameters/stored")


def cases() -> Iterator[Case]:
    """Yield every case, always in the same order."""
    for file, (name, content) in product(FILES, BYTES.items()):
        yield f"{file}: {name}", write(file, content)
    for name, text in YAML.items():
        yield f"config.yaml: {name}", write("config.yaml", text.encode())
    for key, value in product(STATUS_KEYS, JUNK):
        yield f"status.json: {key}={value!r:.20}", change("status.json", key, value)
    for key, value in product(METRIC_KEYS, JUNK):
        yield f"metrics.json: {key}={value!r:.20}", change("metrics.json", key, value)
    for file, (name, make) in product((*FILES, ".lock", "predictions", ".attempt"), KINDS.items()):
        yield f"{file}: {name}", replace_by(file, make)
    for name in LOCKS:
        yield f"lock: {name[:40]!r}", write_lock(name)
    yield "no files but one", keep_only("status.json")
    yield "no config", lambda folder: (folder / "config.yaml").unlink()


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def change(name: str, key: str, value: Any) -> Callable[[Path], object]:
    """Set a key of a JSON file; for status.json, remove the metrics, so that the status counts."""

    def act(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        if name == "status.json":
            (folder / "metrics.json").unlink()
            content["state"] = "failed"
        (folder / name).write_text(json.dumps({**content, key: value}))

    return act


def replace_by(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Replace `name` by another kind of file."""

    def act(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        make(path)

    return act


def write_lock(name: str) -> Callable[[Path], object]:
    """Create a lock with an odd owner, for a run whose status is running."""

    def act(folder: Path) -> None:
        (folder / "metrics.json").unlink()
        (folder / "status.json").write_text('{"state": "running", "step": 1}')
        (folder / ".lock").mkdir()
        (folder / ".lock" / name).touch()

    return act


def keep_only(name: str) -> Callable[[Path], object]:
    def act(folder: Path) -> None:
        for path in folder.iterdir():
            if path.name != name:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return act


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, SPARSE)


def _folder_of_many(path: Path) -> None:
    path.mkdir()
    for number in range(200):
        (path / f"{number}").touch()


KINDS: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a folder": _folder_of_many,
    "a huge file": _sparse,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link to a folder": lambda path: path.symlink_to("/proc"),
    "a link to an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a link to an empty device": lambda path: path.symlink_to("/dev/null"),
    "a link to a terminal": lambda path: path.symlink_to("/dev/tty"),
}
LOCKS = (
    "stray",
    "1-1-00000000-00000000@" + "%1b%5b2J" * 20,
    "99999999999999999999-1-00000000-00000000@host",
    "0-0-00000000-00000000@host",
    "9999999999-99999999999999999999-00000000-00000000@host",
    "1-1-00000000-00000000@%ff%00",
)
