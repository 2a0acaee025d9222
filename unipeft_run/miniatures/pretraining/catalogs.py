"""English-Romanian pairs from the message catalogues (.mo files) of translated programs."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from unipeft_run.miniatures.sources.apt import Apt

# None of these supplies a manual page to `sources.manpages`: some programs (coreutils) generate
# their pages from their own messages, which would leak test pages into the training data.
PACKAGES = (
    *("vlc-l10n", "libreoffice-l10n-ro", "libgtk-3-common", "libgtk-4-common", "gnucash-common"),
    *("evolution-common", "gimp-data", "inkscape", "pidgin-data", "libglib2.0-data"),
    *("gnome-control-center-data", "nautilus-data", "aptitude-common", "synaptic", "gedit-common"),
    *("audacity-data", "shotwell-common", "hexchat-common", "cinnamon-l10n", "kdevelop-l10n"),
    *("kate-data", "plasma-workspace-data", "plasma-desktop-data", "digikam-data"),
)
SHORTEST, LONGEST = 3, 80  # words


def read_messages(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield (msgid, msgstr) of a little-endian .mo file, without contexts and plural forms."""
    magic, _, count, originals, translations = struct.unpack("<5I", content[:20])
    if magic != 0x950412DE:
        return

    def text(table: int, index: int) -> str:
        length, offset = struct.unpack_from("<2I", content, table + 8 * index)
        raw = content[offset : offset + length].decode("utf-8", errors="replace")
        return raw.rpartition("\x04")[2].partition("\0")[0]

    for index in range(count):
        yield text(originals, index), text(translations, index)


def clean_message(message: str) -> str:
    """Remove accelerators (`_File`, `&File`) and collapse white space."""
    return " ".join(re.sub(r"[_&~](?=\w)", "", message).split())


def is_usable(en: str, ro: str) -> bool:
    """Return whether this is a translated sentence or phrase without markup."""
    lengths = len(en.split()), len(ro.split())
    plain = not re.search(r"[<>{}|]|\\n|%\d|http", en + ro)
    fits = min(lengths) >= SHORTEST and max(lengths) <= LONGEST
    return plain and fits and en != ro and 0.4 < lengths[0] / lengths[1] < 2.5


def collect_pairs(debian: Apt) -> list[tuple[str, str]]:
    """Return the usable pairs of all packages in this release, each English text once."""
    known = debian.read_packages()
    found: dict[str, str] = {}
    for package in (name for name in PACKAGES if name in known):
        for path in sorted(debian.unpack(package).rglob("ro/LC_MESSAGES/*.mo")):
            for en, ro in _usable_pairs(path):
                found.setdefault(en, ro)
    return list(found.items())


def _usable_pairs(path: Path) -> Iterator[tuple[str, str]]:
    for original, translation in read_messages(path.read_bytes()):
        en, ro = clean_message(original), clean_message(translation)
        if is_usable(en, ro):
            yield en, ro
