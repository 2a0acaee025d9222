"""Translation en-ro: paragraphs of manual pages beside their Romanian translation."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.progress import track

from unipeft_run.errors import UserError
from unipeft_run.miniatures.sources import apt, roff
from unipeft_run.miniatures.sources.cache import Row, write_splits
from unipeft_run.miniatures.sources.progress import console
from unipeft_run.miniatures.sources.split import (
    at_most,
    normalised,
    split_by,
    unique,
    without_shared,
)

ROMANIAN = ("manpages-ro", "manpages-ro-dev")
ENGLISH = (
    *("manpages", "manpages-dev", "coreutils", "e2fsprogs", "mtools", "kbd", "netpbm"),
    *("nfs-common", "psutils", "gzip", "bzip2", "libsane-common", "gettext", "grub-common"),
)
SHORTEST, LONGEST = 4, 100  # words of a paragraph, either language
HELD_OUT = 500  # of each held-out split: generation is slow on a CPU


def pages(root: Path, language: str = "") -> dict[str, Path]:
    """`section/name` -> the compressed page, links left out."""
    found = (root / "usr/share/man" / language).glob("man*/*.gz")
    return {f"{p.parent.name}/{p.stem}": p for p in sorted(found) if not p.is_symlink()}


def usable(en: str, ro: str) -> bool:
    """Both a translated paragraph of running text, and of a like length."""
    lengths = len(en.split()), len(ro.split())
    if not (min(lengths) >= SHORTEST and max(lengths) <= LONGEST and en != ro):
        return False
    letters = sum(char.isalpha() or char.isspace() for char in en) / len(en)
    return letters > 0.7 and 0.5 < lengths[0] / lengths[1] < 2


def digits(text: str) -> list[str]:
    return sorted(re.findall(r"\d+", text))


def aligned(english: str, romanian: str) -> Iterator[tuple[str, str]]:
    """Paragraph pairs of two pages with the same sections, from sections with as many paragraphs.

    The Romanian page ends in one section more, which names the translators.
    """
    en, ro = roff.sections(english), roff.sections(romanian)
    if not en or len(en) != len(ro) - 1:
        return
    for left, right in zip(en, ro, strict=False):
        if len(left) == len(right):
            for pair in zip(left, right, strict=True):
                if usable(*pair) and digits(pair[0]) == digits(pair[1]):
                    yield pair


def read_page(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")


def collect(debian: apt.Apt) -> list[Row]:
    """Rows translation {en, ro} and page (its name, without the section)."""
    known = debian.packages()
    roots = {n: debian.unpack(n) for n in (*ENGLISH, *ROMANIAN) if n in known}
    english = {k: v for n in ENGLISH if n in roots for k, v in pages(roots[n]).items()}
    romanian = {k: v for n in ROMANIAN if n in roots for k, v in pages(roots[n], "ro").items()}
    rows: list[Row] = []
    both = sorted(english.keys() & romanian.keys())
    for key in track(both, "aligning manual pages", console=console(), transient=True):
        for en, ro in aligned(read_page(english[key]), read_page(romanian[key])):
            name = key.partition("/")[2].partition(".")[0].lower()
            rows.append({"translation": {"en": en, "ro": ro}, "page": name})
    return rows


def side(language: str) -> Callable[[Row], str]:
    return lambda row: normalised(row["translation"][language])


def build(folder: Path) -> None:
    debian = apt.Apt.open()
    rows = unique(collect(debian), side("en"))
    if len(rows) < 2 * HELD_OUT:
        raise UserError(f"only {len(rows)} paragraph pairs in {debian.release}'s manual pages")
    splits = split_by(rows, lambda row: str(row["page"]), validation=0.08, test=0.08)
    splits = without_shared(splits, side("en"), side("ro"))
    for split in ("validation", "test"):
        splits[split] = at_most(splits[split], HELD_OUT, side("en"))
    source = {
        "what": "paragraphs of manual pages and their Romanian translation",
        "package": {"names": [*ROMANIAN, *ENGLISH], "release": debian.release},
        "licence": "GPL-3+ (translations) and each manual page's own",
        "split": "hash of the page's name; paragraphs that occur in training are dropped",
    }
    write_splits(folder, splits, source)
