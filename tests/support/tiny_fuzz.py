"""Draw wrong command lines, and damage folders, from a seed."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from unipeft_run.config.messages import options
from unipeft_run.config.schema import AXES, SLOTS

VALUES = (
    *("-1", "0", "1e400", "nan", "-inf", "word", "[1,2]", "{a: 1}", "null", "''", "true", "2.5"),
    *("9" * 30, "${nope}", "${oc.env:HOME}", "${oc.decode:}", "???", "[[[]]]", "a b", "0x10"),
)
SIGNS = "abz059=@.,:[]{}()~+-_/\\'\"$%^ \t\u00e9\u0219\u4e2d"
JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 10**30, float("nan"), "", "word", "???", "${nope}", "\u0219"),
    *([], [1], ["word"], {}, {"a": 1}, {"_target_": "os.system"}, [[{}]]),
)
Damage = Callable[[random.Random, Path], None]


# ---- command lines


def wrong_overrides(rng: random.Random, keys: Sequence[str]) -> list[str]:
    """Draw one to three overrides that are probably wrong."""
    kinds = (_misspelt, _mistaken, _misplaced, _scribbled)
    return [rng.choice(kinds)(rng, keys) for _ in range(rng.choice((1, 1, 1, 2, 3)))]


def _misspelt(rng: random.Random, keys: Sequence[str]) -> str:
    key = rng.choice(keys)
    at = rng.randrange(len(key))
    letter = rng.choice("aeinrst._@")
    changed = rng.choice((key[:at] + key[at + 1 :], key[:at] + letter + key[at:], key[at:]))
    return f"{rng.choice(('', '', '', '+', '~'))}{changed}={rng.choice(VALUES)}"


def _mistaken(rng: random.Random, keys: Sequence[str]) -> str:
    return f"{rng.choice(keys)}={rng.choice(VALUES)}"


def _misplaced(rng: random.Random, keys: Sequence[str]) -> str:
    axis, slot = rng.choice(AXES), rng.choice(SLOTS)
    return f"{axis}@{slot}={rng.choice([*options(axis), *options(rng.choice(AXES)), 'null'])}"


def _scribbled(rng: random.Random, keys: Sequence[str]) -> str:
    scribble = "".join(rng.choice(SIGNS) for _ in range(rng.randrange(1, 12)))
    return rng.choice((scribble, f"{rng.choice(keys)}{scribble}", f"{rng.choice(keys)}={scribble}"))


# ---- files


def damaged(rng: random.Random, folder: Path, names: Sequence[str]) -> str:
    """Damage one of the files `names` in `folder`; return a description of the damage."""
    file = folder / rng.choice(names)
    damages: list[Damage] = [_cut, _flipped, _overwritten, _gone, _a_folder]
    if file.suffix in (".yaml", ".json"):
        damages += [_changed] * 6
    if file.suffix == ".safetensors":
        damages += [_other_tensors] * 2
    damage = rng.choice(damages)
    damage(rng, file)
    return f"{damage.__name__} {file.name}"


def _cut(rng: random.Random, file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(len(content))])


def _flipped(rng: random.Random, file: Path) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(5):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def _overwritten(rng: random.Random, file: Path) -> None:
    file.write_bytes(rng.randbytes(rng.choice((0, 1, 8, 200))))


def _gone(rng: random.Random, file: Path) -> None:
    file.unlink()


def _a_folder(rng: random.Random, file: Path) -> None:
    file.unlink()
    file.mkdir()


def _changed(rng: random.Random, file: Path) -> None:
    """Change, rename or remove one value in the file."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    places = list(_places(content))
    node, key = rng.choice(places)
    if isinstance(node, dict) and rng.random() < 0.4:
        value = node.pop(key)
        if rng.random() < 0.5:
            node[f"{key}{rng.choice('xs_')}"] = value
    else:
        node[key] = rng.choice(JUNK)
    dump = json.dumps if file.suffix == ".json" else yaml.safe_dump
    file.write_text(dump(content), encoding="utf-8")


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (mapping, key) and (list, index) below `node`."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])


def _other_tensors(rng: random.Random, file: Path) -> None:
    """Replace the file by a valid one with other tensors."""
    file.unlink()
    name = rng.choice(("a", "encoder.layer.0.attention", ""))
    save_file({name: torch.zeros(rng.choice((0, 1, 7)), dtype=torch.float16)}, file)


def snapshot(folder: Path, *excluded: Path) -> dict[Path, bytes | None]:
    """Read every file in `folder`, except those in `excluded` folders; None for a folder."""
    paths = (p for p in folder.rglob("*") if not any(p.is_relative_to(e) for e in excluded))
    return {path: None if path.is_dir() else path.read_bytes() for path in paths}


def copy_folder(source: Path, target: Path) -> Path:
    """Copy the folder `source` to `target`, replacing it."""
    shutil.rmtree(target, ignore_errors=True)
    return shutil.copytree(source, target)
