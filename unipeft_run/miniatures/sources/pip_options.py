"""Read pip's configuration, so that downloads use the same package indexes as `pip install`."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder

from unipeft_run.errors import UserError

SECTIONS = ("global", "download", ":env:")  # later ones take precedence


def read_options() -> dict[str, str]:
    """Return pip's options by long name, from its configuration files and PIP_* variables.

    Without pip, only the variables are read. Raises UserError if pip refuses its configuration.
    """
    # importlib.util.find_spec runs setuptools' hook for pip; then setuptools cannot be imported
    if PathFinder.find_spec("pip") is None:
        return _from_environment(os.environ)
    command = [sys.executable, "-P", "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())
        raise UserError(f"pip's configuration cannot be read (pip config list): {reason}")
    return parse_listing(done.stdout)


def parse_listing(printed: str) -> dict[str, str]:
    """Parse the output of `pip config list`: lines `section.name='value'`."""
    sections: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in printed.splitlines():
        section, _, option = line.partition(".")
        name, equals, value = option.partition("=")
        if section in sections and equals:
            sections[section][name] = str(ast.literal_eval(value))
    return {name: value for section in SECTIONS for name, value in sections[section].items()}


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith("PIP_") and value
    }
