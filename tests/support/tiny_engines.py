"""Stand-ins for what an engine needs."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest


def install(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    """Make `import name` give a module with these members and no others."""
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)
