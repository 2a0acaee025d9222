"""Write command lines that the user can copy."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from unipeft_run.extensions import named_folders

SPECIAL = re.compile(r'["$`\\!]')  # in double quotes


def format_command(words: Sequence[str]) -> str:
    """Return `unipeft WORDS` with the --config-dir arguments of this command."""
    folders = [word for folder in named_folders() for word in ("--config-dir", folder)]
    return " ".join(map(_quote, ["unipeft", *words, *folders]))


def _quote(word: str) -> str:
    """Quote `word`; in double quotes if it holds single ones, as output='~/my runs' does."""
    return f'"{word}"' if "'" in word and not SPECIAL.search(word) else shlex.quote(word)
