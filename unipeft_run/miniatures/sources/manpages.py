"""Translation (wmt16_en_ro): paragraphs of manual pages and their Romanian translations."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.progress import track

from unipeft_run.errors import UserError
from unipeft_run.miniatures.sources import apt, roff
from unipeft_run.miniatures.sources.progress import console
from unipeft_run.miniatures.sources.rows import Row, write_splits
from unipeft_run.miniatures.sources.split import (
    deduplicate,
    drop_leaks,
    normalise,
    sample,
    split_by_hash,
)

ROMANIAN = ("manpages-ro", "manpages-ro-dev")
ENGLISH = (
    *("manpages", "manpages-dev", "coreutils", "e2fsprogs", "mtools", "kbd", "netpbm"),
    *("nfs-common", "psutils", "gzip", "bzip2", "libsane-common", "gettext", "grub-common"),
)
SHORTEST, LONGEST = 4, 100  # words of a paragraph, in either language
HELD_OUT = 500  # of each held-out split: generation is slow on a CPU


def find_pages(root: Path, language: str = "") -> dict[str, Path]:
    """Map `section/name` to the compressed page; symbolic links are skipped."""
    found = (root / "usr/share/man" / language).glob("man*/*.gz")
    return {f"{p.parent.name}/{p.stem}": p for p in sorted(found) if not p.is_symlink()}


def is_usable(en: str, ro: str) -> bool:
    """Return whether both are running text, of similar length, and translated."""
    lengths = len(en.split()), len(ro.split())
    if not (min(lengths) >= SHORTEST and max(lengths) <= LONGEST and en != ro):
        return False
    letters = sum(char.isalpha() or char.isspace() for char in en) / len(en)
    return letters > 0.7 and 0.5 < lengths[0] / lengths[1] < 2


def find_numbers(text: str) -> list[str]:
    return sorted(re.findall(r"\d+", text))


def align_paragraphs(english: str, romanian: str) -> Iterator[tuple[str, str]]:
    """Yield the paragraph pairs of two pages with matching sections.

    Sections with different numbers of paragraphs are skipped. The Romanian page has one more
    section at its end, which names the translators.
    """
    en, ro = roff.parse_sections(english), roff.parse_sections(romanian)
    if not en or len(en) != len(ro) - 1:
        return
    for left, right in zip(en, ro, strict=False):
        if len(left) == len(right):
            for pair in zip(left, right, strict=True):
                if is_usable(*pair) and find_numbers(pair[0]) == find_numbers(pair[1]):
                    yield pair


def read_page(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")


def collect_rows(debian: apt.Apt) -> list[Row]:
    """Return rows with `translation` {en, ro} and `page`, the page's name without its section."""
    known = debian.read_packages()
    roots = {n: debian.unpack(n) for n in (*ENGLISH, *ROMANIAN) if n in known}
    english = {k: v for n in ENGLISH if n in roots for k, v in find_pages(roots[n]).items()}
    romanian = {k: v for n in ROMANIAN if n in roots for k, v in find_pages(roots[n], "ro").items()}
    rows: list[Row] = []
    both = sorted(english.keys() & romanian.keys())
    for key in track(both, "aligning manual pages", console=console(), transient=True):
        for en, ro in align_paragraphs(read_page(english[key]), read_page(romanian[key])):
            name = key.partition("/")[2].partition(".")[0].lower()
            rows.append({"translation": {"en": en, "ro": ro}, "page": name})
    return rows


def text_in(language: str) -> Callable[[Row], str]:
    """Return a key function: a row's normalised text in one language."""
    return lambda row: normalise(row["translation"][language])


def build(folder: Path) -> None:
    """Write the splits to `folder`."""
    debian = apt.Apt.open()
    rows = deduplicate(collect_rows(debian), text_in("en"))
    if len(rows) < 2 * HELD_OUT:
        raise UserError(f"only {len(rows)} paragraph pairs in {debian.release}'s manual pages")
    splits = split_by_hash(rows, lambda row: str(row["page"]), validation=0.08, test=0.08)
    splits = drop_leaks(splits, text_in("en"), text_in("ro"))
    for split in ("validation", "test"):
        splits[split] = sample(splits[split], HELD_OUT, text_in("en"))
    source = {
        "what": "paragraphs of manual pages and their Romanian translation",
        "package": {"names": [*ROMANIAN, *ENGLISH], "release": debian.release},
        "licence": "GPL-3+ (translations) and each manual page's own",
        "split": "hash of the page's name; paragraphs that occur in training are dropped",
    }
    write_splits(folder, splits, source)
