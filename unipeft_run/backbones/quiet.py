"""Silence transformers while it reads or writes a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import transformers


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Hide transformers' progress bars inside this context."""
    logging = transformers.utils.logging
    if not logging.is_progress_bar_enabled():  # enabling them again would warn
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


@contextmanager
def no_loading_report() -> Iterator[None]:
    """Hide transformers' loading report, which our checks cover, and its progress bars."""
    logging = transformers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with no_progress_bars():
            yield
    finally:
        logging.set_verbosity(verbosity)
