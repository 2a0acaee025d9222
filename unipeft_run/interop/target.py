"""Guard the folders that imports and exports write to. Imports nothing heavy."""

from fnmatch import fnmatchcase
from pathlib import Path

from unipeft_run.config.messages import shorten
from unipeft_run.errors import UserError
from unipeft_run.runs.folder import is_run_folder

CARD = "README.md"
ORIGIN = "Trained with unipeft; the run is "  # a line of the card of every export
EXPORTED = (  # the files of exports
    *(CARD, "config.json", "generation_config.json", "model*.safetensors*"),
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model"),
    *("sentencepiece.bpe.model", "spiece.model", "preprocessor_config.json"),
    *("adapter_config.json", "adapter_model.safetensors"),
    *("config.yaml", "contents.json", "delta.json", "delta.safetensors", "backbone"),
    *("load.py", "__pycache__"),
)


def check_run_target(folder: Path, *, force: bool) -> None:
    """Raise UserError unless `folder` is new, empty or, with `force`, a run folder of ours."""
    names = _names_in(folder)
    if not names:
        return
    is_run = is_run_folder(folder)
    if is_run and not force:
        raise UserError(f"{folder} already holds a run; name another --out, or add --force")
    if not is_run:
        raise _not_empty(folder, names, "a run folder")


def check_export_target(folder: Path, *, force: bool) -> None:
    """Raise UserError unless `folder` is new, empty or, with `force`, holds only our export.

    The files of other models have the same names, so the card tells whose they are.
    """
    names = _names_in(folder)
    if not names:
        return
    if others := {name for name in names if not _is_exported(folder / name)}:
        raise _not_empty(folder, others, "an exported adapter or model")
    if not _is_ours(folder / CARD):
        raise UserError(
            f"--out={folder} holds an adapter or model that unipeft did not export, as its {CARD} "
            "would say; nothing was written, name a new folder"
        )
    if not force:
        raise UserError(
            f"{folder} already holds an adapter or model; name another --out, or add --force"
        )


def _is_ours(card: Path) -> bool:
    """Return whether a model card is that of an export."""
    try:
        lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.startswith(ORIGIN) for line in lines)


def _is_exported(path: Path) -> bool:
    return not path.is_symlink() and any(fnmatchcase(path.name, known) for known in EXPORTED)


def _names_in(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise UserError(f"--out={folder} cannot be used: {error.strerror}") from None


def _not_empty(folder: Path, names: set[str], kind: str) -> UserError:
    return UserError(
        f"--out={folder} is neither empty nor {kind}: it holds {shorten(min(names))}; "
        "nothing was written, name a new folder"
    )
