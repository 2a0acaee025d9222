"""Make text from files and command lines safe to print."""

from __future__ import annotations

from typing import Any


def printable(text: Any, length: int | None = None) -> str:
    r"""Return `text` on one line, with every unprintable character escaped (`\x1b`, `\u202e`).

    Terminal escape sequences, line breaks, bidirectional overrides, lone surrogates and bytes that
    are not UTF-8 become visible. `length`: truncate to this many characters.
    """
    plain = text if isinstance(text, str) else str(text)
    if length is not None and len(plain) > length:
        plain = plain[: max(0, length - 3)] + "..."
    if plain.isprintable():
        return plain
    return "".join(char if char.isprintable() else _escape(char) for char in plain)


def printable_lines(text: Any) -> str:
    """Return `text` with its line breaks kept, and each line printable."""
    return "\n".join(map(printable, str(text).split("\n")))


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte of a file name that is not UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()
