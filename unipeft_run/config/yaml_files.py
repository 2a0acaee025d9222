"""Load the YAML files of conf/ and of extension folders, and explain broken ones."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from unipeft_run.errors import UserError


def load_config(file: Path) -> DictConfig:
    """Load a file of keys and values. Raises UserError for any other file."""
    try:
        config = OmegaConf.load(file)
    except YAMLError as error:
        raise UserError(describe_yaml_error(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from None
    if not isinstance(config, DictConfig):
        raise UserError(f"{file}: must hold keys and values, but holds a list")
    return config


def unreadable(file: Path, error: OSError | UnicodeDecodeError) -> UserError:
    """Say why a file cannot be read."""
    if isinstance(error, UnicodeDecodeError):
        return UserError(f"{file} cannot be read: it is not UTF-8")
    return UserError(f"{file} cannot be read: {error.strerror or error}")


def describe_yaml_error(error: YAMLError, file: Path | None = None) -> str:
    """Name the file, by default the one that the error names, its line and what is wrong there."""
    mark = getattr(error, "problem_mark", None)
    name = file or getattr(mark or error, "name", None) or "a YAML file"
    line = f", line {mark.line + 1}" if mark else ""
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or error
    return f"{name}{line} is not YAML: {' '.join(str(reason).split())}"
