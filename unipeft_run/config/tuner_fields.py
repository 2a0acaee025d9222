"""Read the configuration classes of the PEFT library from their source, without importing it.

Importing the library takes seconds, because it imports torch and transformers.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from unipeft_run.errors import UserError


def require_library() -> Path:
    """Return the folder of the PEFT library. Raises UserError if it is not installed."""
    spec = find_spec("peft")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the PEFT library is not installed, which the methods peft/... use; "
            "install it with: pip install 'unipeft[peft]'"
        )
    return Path(spec.submodule_search_locations[0])
