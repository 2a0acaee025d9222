r"""The scripts of Moses that prepare text for BLEU, one line at a time.

Each function does what the script of its name does (mosesdecoder, scripts/tokenizer), down to the
places where a port usually departs:

* normalize-punctuation.perl reads bytes and keeps the end of the line, so that \d is 0 to 9,
  letters are A to Z, and the full stop before a closing quote moves out even at the very end;
* remove-non-printing-char.perl puts a space where the character was;
* tokenizer.perl separates the full stop of the last word, whatever the word is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import regex  # for Unicode properties, as Perl's

NBSP = "\u00a0"

# replace-unicode-punctuation.perl: ideographic and full-width signs, digits, curly quotes
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

# normalize-punctuation.perl, in the script's order
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
    ("[\u2018\u201a\u2019]", '"'),
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
CONTINENTAL = (  # the rules for languages other than English and Czech
    (',"', '",'),
    (r'(\.+)"((?a:\s)*[^<])', r'"\1\2'),
    (f"([0-9]){NBSP}([0-9])", r"\1.\2"),
)
RULES = [
    (re.compile(pattern), plain)
    for pattern, plain in SPACING + QUOTES_AND_DASHES + GUILLEMETS + PSEUDO_SPACES + CONTINENTAL
]

OTHER = regex.compile(r"\p{C}")  # control, format, private and unassigned characters
WHITE = regex.compile(r"\s+")
# marks that Unicode counts among the letters since version 16: Perl's of the time did not
LATER = "\u0363-\u036f\u0c04\u0f82\u0f83\u1dd3-\u1de6\U00011080\U00011081"
SPECIAL = regex.compile(rf"([^\p{{Alphabetic}}\p{{Nd}}\s.'`,\-]|[{LATER}])")
DOTS = re.compile(r"\.{2,}")
COMMAS = [
    (regex.compile(pattern), plain)
    for pattern, plain in (
        (r"(\P{N}),", r"\1 , "),
        (r",(\P{N})", r" , \1"),
        (r"(\p{N}),$", r"\1 ,"),  # elsewhere a comma between digits stays
    )
]
LETTER = regex.compile(rf"(?![{LATER}])\p{{Alphabetic}}")
LOWER = regex.compile(r"\p{Lowercase}")


def replace_unicode_punctuation(line: str) -> str:
    """Full-width and ideographic signs, and curly double quotes, as ASCII."""
    return WIDE_STOP.sub(". ", line.translate(ASCII))


def normalize_punctuation(line: str) -> str:
    """Spacing, quotes, dashes and no-break spaces, for a language with continental quotation."""
    return substituted(f"{line}\n", RULES).removesuffix("\n")


def remove_non_printing_char(line: str) -> str:
    """A space for each control, format, private and unassigned character."""
    return OTHER.sub(" ", line)


def tokenize(line: str, nonbreaking_prefixes: Collection[str]) -> list[str]:
    """The tokens of `line`, nothing escaped, for a language that separates every apostrophe.

    `nonbreaking_prefixes`: words that keep a full stop where they are not the last word.
    """
    line = SPECIAL.sub(r" \1 ", WHITE.sub(" ", line).strip(" "))
    line = DOTS.sub(r" \g<0> ", line)
    line = substituted(line, COMMAS).replace("'", " ' ")
    words = line.rstrip(" ").split(" ")
    following = [*words[1:], None]
    return [
        token
        for word, after in zip(words, following, strict=True)
        for token in split_full_stop(word, after, nonbreaking_prefixes)
        if token
    ]


def split_full_stop(
    word: str, after: str | None, nonbreaking_prefixes: Collection[str]
) -> list[str]:
    """`word` and its full stop, or both as one: in abbreviations, and where a sentence goes on.

    `after` is the next word, None at the end of the line.
    """
    stem = word.removesuffix(".")
    if stem == word or not stem.strip("."):
        return [word]
    if after is not None:
        abbreviated = "." in stem and LETTER.search(stem)
        if abbreviated or stem in nonbreaking_prefixes or LOWER.match(after):
            return [word]
    return [stem, "."]


def substituted(line: str, rules: Iterable[tuple[re.Pattern[str], str]]) -> str:
    """`line` after each rule in turn."""
    for pattern, plain in rules:
        line = pattern.sub(plain, line)
    return line
