"""English-Romanian pairs from the message catalogues (.mo) of translated programs."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from unipeft_run.miniatures.sources.apt import Apt

# None of these is the source of a manual page in `sources.manpages`: programs whose pages are
# made from their own messages (coreutils) would bring the test pages in by the back door.
PACKAGES = (
    *("vlc-l10n", "libreoffice-l10n-ro", "libgtk-3-common", "libgtk-4-common", "gnucash-common"),
    *("evolution-common", "gimp-data", "inkscape", "pidgin-data", "libglib2.0-data"),
    *("gnome-control-center-data", "nautilus-data", "aptitude-common", "synaptic", "gedit-common"),
    *("audacity-data", "shotwell-common", "hexchat-common", "cinnamon-l10n", "kdevelop-l10n"),
    *("kate-data", "plasma-workspace-data", "plasma-desktop-data", "digikam-data"),
)
SHORTEST, LONGEST = 3, 80  # words


def messages(content: bytes) -> Iterator[tuple[str, str]]:
    """(msgid, msgstr) of a little-endian .mo file: contexts dropped, first plural form."""
    magic, _, count, originals, translations = struct.unpack("<5I", content[:20])
    if magic != 0x950412DE:
        return

    def text(table: int, index: int) -> str:
        length, offset = struct.unpack_from("<2I", content, table + 8 * index)
        raw = content[offset : offset + length].decode("utf-8", errors="replace")
        return raw.rpartition("\x04")[2].partition("\0")[0]

    for index in range(count):
        yield text(originals, index), text(translations, index)


def tidy(message: str) -> str:
    """A message without accelerators (`_File`, `&File`) and with its white space folded."""
    return " ".join(re.sub(r"[_&~](?=\w)", "", message).split())


def usable(en: str, ro: str) -> bool:
    """A sentence or phrase without markup that is translated."""
    lengths = len(en.split()), len(ro.split())
    plain = not re.search(r"[<>{}|]|\\n|%\d|http", en + ro)
    fits = min(lengths) >= SHORTEST and max(lengths) <= LONGEST
    return plain and fits and en != ro and 0.4 < lengths[0] / lengths[1] < 2.5


def pairs(debian: Apt) -> list[tuple[str, str]]:
    """The usable pairs of all packages that this release has, each English text once."""
    known = debian.packages()
    found: dict[str, str] = {}
    for package in (name for name in PACKAGES if name in known):
        for path in sorted(debian.unpack(package).rglob("ro/LC_MESSAGES/*.mo")):
            for en, ro in _tidied(path):
                found.setdefault(en, ro)
    return list(found.items())


def _tidied(path: Path) -> Iterator[tuple[str, str]]:
    for original, translation in messages(path.read_bytes()):
        en, ro = tidy(original), tidy(translation)
        if usable(en, ro):
            yield en, ro
