"""Guard the folders that imports and exports write to. Imports nothing heavy."""

from fnmatch import fnmatchcase
from pathlib import Path

from unipeft_run.config.messages import shorten
from unipeft_run.errors import UserError
from unipeft_run.runs.folder import is_run_folder

EXPORTED = (  # the files of exports
    *("README.md", "config.json", "generation_config.json", "model*.safetensors*"),
    *("tokenizer*.json", "special_tokens_map.json", "vocab.json", "merges.txt"),
    *("sentencepiece.bpe.model", "adapter_config.json", "adapter_model.safetensors"),
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
    """Raise UserError unless `folder` is new, empty or, with `force`, holds only an export."""
    names = _names_in(folder)
    if not names:
        return
    if others := {name for name in names if not _is_exported(folder / name)}:
        raise _not_empty(folder, others, "an exported adapter or model")
    if not force:
        raise UserError(
            f"{folder} already holds an adapter or model; name another --out, or add --force"
        )


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
