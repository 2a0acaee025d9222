r"""Ports of the Moses scripts that prepare Romanian text for BLEU, one line at a time.

Each function ports the mosesdecoder script of the same name (scripts/tokenizer) in its version of
November 2019. Ports usually get these points wrong:

* normalize-punctuation.perl reads bytes and keeps the newline. So \d is 0 to 9, letters are A to Z,
  and a full stop before a closing quote is moved out even at the end of the line.
* normalize-punctuation.perl turns U+2018 and U+201A into an apostrophe, U+2019 into a double quote.
* remove-non-printing-char.perl replaces a character with a space; it does not delete it.
* tokenizer.perl splits the full stop off the last word, abbreviation or not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

import regex  # Unicode properties, as in Perl

NBSP = "\u00a0"

# replace-unicode-punctuation.perl: ideographic and full-width punctuation, digits, curly quotes
SIGNS = {
    ",": "\uff0c\u3001",
    '"': "\u201d\u201c\u300a\u300b\u300d\u300c",
    ":": "\u2236\uff1a",
    "?": "\uff1f",
    "!": "\uff01",
    ";": "\uff1b",
    "(": "\uff08",
    ")": "\uff09",
    "~": "\uff5e",
    "'": "\u2019",
    "...": "\u2026",
    "-": "\u2501",
    "<": "\u3008",
    ">": "\u3009",
    "[": "\u3010",
    "]": "\u3011",
    "%": "\uff05",
    **{str(digit): chr(0xFF10 + digit) for digit in range(10)},
}
ASCII = str.maketrans({sign: plain for plain, signs in SIGNS.items() for sign in signs})
WIDE_STOP = re.compile("[\u3002\uff0e] *")

# normalize-punctuation.perl: the rules in the script's order
SPACING = (
    (r"\r", ""),
    (r"\(", " ("),
    (r"\)", ") "),
    (" +", " "),
    (r"\) ([.!:?;,])", r")\1"),
    (r"\( ", "("),
    (r" \)", ")"),
    ("([0-9]) %", r"\1%"),
    (" :", ":"),
    (" ;", ";"),
)
QUOTES_AND_DASHES = (
    ("`", "'"),
    ("''", ' " '),
    ("[\u201e\u201c\u201d]", '"'),
    ("\u2013", "-"),
    ("\u2014", " - "),
    (" +", " "),
    ("\u00b4", "'"),
    ("([A-Za-z])\u2018([A-Za-z])", r"\1'\2"),
    ("([A-Za-z])\u2019([A-Za-z])", r"\1'\2"),
    ("[\u2018\u201a]", "'"),
    ("\u2019", '"'),
    ("''", '"'),
    ("\u2026", "..."),
)
GUILLEMETS = (
    (f"{NBSP}\u00ab{NBSP}", ' "'),
    (f"\u00ab{NBSP}", '"'),
    ("\u00ab", '"'),
    (f"{NBSP}\u00bb{NBSP}", '" '),
    (f"{NBSP}\u00bb", '"'),
    ("\u00bb", '"'),
)
PSEUDO_SPACES = (
    (f"{NBSP}%", "%"),
    (f"n\u00ba{NBSP}", "n\u00ba "),
    (f"{NBSP}:", ":"),
    (f"{NBSP}\u00baC", " \u00baC"),
    (f"{NBSP}cm", " cm"),
    (rf"{NBSP}([?!;])", r"\1"),
    (f",{NBSP}", ", "),
    (" +", " "),
)
ROMANIAN = (  # the branches that -l ro takes
    (',"', '",'),
    # (\.+)"(\s*[^<]), written so that a long run of full stops is scanned once
    (r'(\.++)(?:(")((?a:\s)*[^<]))?', r"\2\1\3"),
    (f"([0-9]){NBSP}([0-9])", r"\1.\2"),
)
RULES = [
    (re.compile(pattern), replacement)
    for group in (SPACING, QUOTES_AND_DASHES, GUILLEMETS, PSEUDO_SPACES, ROMANIAN)
    for pattern, replacement in group
]

WHITE = regex.compile(r"\s+")
# Perl 5.36 knows Unicode 14. These became letters, or changed case, in later versions.
NEW_LETTERS = "\u0363-\u036f\u0c04\u0f82\u0f83\u1dd3-\u1de6\U00011080\U00011081"
NEW_LOWERCASE = "\u10fc\ua7f2-\ua7f4\uab69"
SPECIAL = regex.compile(rf"([^\p{{Alphabetic}}\p{{Nd}}\s.'`,\-]|[{NEW_LETTERS}])")
DOTS = re.compile(r"\.{2,}")
COMMAS = [
    (regex.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(\P{N}),", r"\1 , "),
        (r",(\P{N})", r" , \1"),
        (r"(\p{N}),$", r"\1 ,"),  # any other comma between digits stays
    )
]
LETTER = regex.compile(rf"(?![{NEW_LETTERS}])\p{{Alphabetic}}")
LOWERCASE = regex.compile(rf"(?![{NEW_LOWERCASE}])\p{{Lowercase}}|\u0295")


def replace_unicode_punctuation(line: str) -> str:
    """Replace full-width and ideographic punctuation and curly quotes with ASCII."""
    return WIDE_STOP.sub(". ", line.translate(ASCII))


def normalize_punctuation(line: str) -> str:
    """Normalise spacing, quotes, dashes and no-break spaces, as `-l ro` does."""
    return apply_rules(f"{line}\n", RULES).removesuffix("\n")


def remove_non_printing_char(line: str) -> str:
    """Replace control, format, private and unassigned characters (category C) with spaces."""
    return "".join(" " if unicodedata.category(c).startswith("C") else c for c in line)


def tokenize(line: str, nonbreaking_prefixes: Collection[str]) -> list[str]:
    """Split `line` into tokens, as `-no-escape -l ro` does: every apostrophe is a token.

    `nonbreaking_prefixes`: abbreviations that keep their full stop unless they end the line.
    """
    line = SPECIAL.sub(r" \1 ", WHITE.sub(" ", line).strip(" "))
    line = DOTS.sub(r" \g<0> ", line)
    line = apply_rules(line, COMMAS).replace("'", " ' ")
    words = line.rstrip(" ").split(" ")
    following = [*words[1:], None]
    return [
        token
        for word, next_word in zip(words, following, strict=True)
        for token in split_full_stop(word, next_word, nonbreaking_prefixes)
        if token
    ]


def split_full_stop(
    word: str, next_word: str | None, nonbreaking_prefixes: Collection[str]
) -> list[str]:
    """Split the full stop off `word`, except in abbreviations and before a lower-case word.

    `next_word` is None at the end of the line, where the full stop is always split off.
    """
    stem = word.removesuffix(".")
    if stem == word or not stem.strip("."):
        return [word]
    if next_word is not None:
        is_abbreviation = "." in stem and LETTER.search(stem)
        if is_abbreviation or stem in nonbreaking_prefixes or LOWERCASE.match(next_word):
            return [word]
    return [stem, "."]


def apply_rules(line: str, rules: Iterable[tuple[re.Pattern[str], str]]) -> str:
    """Apply each substitution to `line` in turn."""
    for pattern, replacement in rules:
        line = pattern.sub(replacement, line)
    return line
