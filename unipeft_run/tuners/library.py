"""The PEFT library: import it, build its configurations, and wrap a model with its modules."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import nn

from unipeft_run.backbones.quiet import no_loading_report
from unipeft_run.config.messages import shorten, unknown_choice, unknown_key
from unipeft_run.config.tuner_fields import require_library
from unipeft_run.errors import UserError

ADAPTER = "default"  # the library's name of the only adapter


def import_library() -> ModuleType:
    """Import the PEFT library. Raises UserError if it is not installed."""
    require_library()
    with quiet():
        import peft

    return peft


def library_version() -> str:
    """Return the version of the installed library."""
    return str(import_library().__version__)


def build_config(kind: str, fields: Mapping[str, Any], key: str) -> Any:
    """Build the library's configuration of type `kind`, whose fields are the section `key`.

    Raises UserError for an unknown type or field, and for a value that the library rejects.
    """
    classes = import_library().mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    names = {str(name.value): cls for name, cls in classes.items()}
    if kind not in names:
        raise UserError(unknown_choice(f"{key}.peft_type", kind, sorted(names)))
    known = list(names[kind].__dataclass_fields__)
    for name in fields:
        if name not in known:
            raise UserError(unknown_key(f"{key}.{name}", [f"{key}.{other}" for other in known]))
    with converted_errors(key), quiet():
        return names[kind](**fields)


def wrap(model: nn.Module, config: Any, key: str) -> Any:
    """Put the library's modules into `model`, in place; return the library's wrapper of it.

    New parameters get the type of the weights beside them. Raises UserError if the library rejects
    the configuration.
    """
    with converted_errors(key), quiet():
        return import_library().get_peft_model(
            model, config, adapter_name=ADAPTER, autocast_adapter_dtype=False
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings of the library and of transformers inside this context."""
    with warnings.catch_warnings(), no_loading_report():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def converted_errors(key: str) -> Iterator[None]:
    """Convert any exception of the library into a UserError of one line that names `key`."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # the library does not document its exceptions
        reason = str(error) or type(error).__name__
        raise UserError(f"{key}: rejected by the PEFT library: {shorten(reason, 300)}") from error
