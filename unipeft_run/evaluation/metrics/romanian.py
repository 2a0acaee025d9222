"""Normalise and tokenise Romanian text, as the paper's exps/romanian_postprocess.sh does."""

from __future__ import annotations

from functools import cache

from unipeft_run.evaluation.metrics import moses

# normalise-romanian.py and remove-diacritics.py of wmt16-scripts: s and t with cedilla or comma
# below, a with breve or circumflex and i with circumflex lose their marks
DIACRITICS = str.maketrans(
    "\u015e\u015f\u0162\u0163\u0218\u0219\u021a\u021b\u0102\u0103\u00c2\u00e2\u00ce\u00ee",
    "SsTtSsTtAaAaIi",
)


def tokenize_romanian(text: str) -> str:
    """Normalise `text`, strip its diacritics, and return its tokens joined by spaces.

    A line break within `text` counts as a space.
    """
    line = moses.replace_unicode_punctuation(text.replace("\n", " "))
    line = moses.remove_non_printing_char(moses.normalize_punctuation(line))
    return " ".join(moses.tokenize(line.translate(DIACRITICS), nonbreaking_prefixes()))


@cache
def nonbreaking_prefixes() -> frozenset[str]:
    """Load the Romanian abbreviations of Moses (nonbreaking_prefix.ro; none is numeric-only)."""
    from sacremoses.corpus import NonbreakingPrefixes

    return frozenset(word.strip() for word in NonbreakingPrefixes().words("ro"))
