"""Manual pages (man macros) as sections of plain paragraphs: enough to align two languages."""

from __future__ import annotations

import re

Section = list[str]

SECTION = {"SH", "SS"}
PARAGRAPH = {"P", "PP", "LP", "TP", "TQ", "IP", "HP", "RS", "RE", "sp", "br", "ti", "in"}
FONTS = {"B", "I", "R", "SM", "SB"}  # words set in one font, spaces kept
MIXED = {"BI", "BR", "IB", "IR", "RB", "RI"}  # words in turn in two fonts, set without spaces
VERBATIM = {"nf": "fi", "EX": "EE", "TS": "TE", "SY": "YS", "de": ".", "ig": "."}
ESCAPES = [
    (r"\\f(\[[^]]*\]|\(..|.)", ""),  # fonts
    (r"\\[sm][-+]?\d+|\\\*\(lq|\\\*\(rq|\\[&|^/,:)%c]", ""),
    (r"\\\((aq|cq|oq)|\\\[(aq|cq|oq)\]", "'"),
    (r"\\\((lq|rq|dq)|\\\[(lq|rq|dq)\]|\\\*\[[lr]q\]", '"'),
    (r"\\\((em|en|hy)|\\\[(em|en|hy)\]|\\-", "-"),
    (r"\\\(bu|\\\[bu\]", "*"),
    (r"\\\(ti|\\\[ti\]", "~"),
    (r"\\\((ha|\^)|\\\[ha\]", "^"),
    (r"\\\(rs|\\\[rs\]|\\e", r"\\"),
    (r"\\[ ~0]", " "),
    (r"\\\((\w\w)|\\\[[^]]*\]", ""),
]
UNESCAPE = [(re.compile(pattern), text) for pattern, text in ESCAPES]


def plain(text: str) -> str:
    """Text without roff's escapes, its white space folded."""
    text = re.sub(r'\\".*', "", text)
    for pattern, replacement in UNESCAPE:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


def words(arguments: str) -> list[str]:
    """A macro's arguments; double quotes hold one together."""
    found = re.findall(r'"((?:[^"]|"")*)"?|(\S+)', arguments)
    return [quoted.replace('""', '"') or bare for quoted, bare in found]


class Reader:
    """One pass over a page. Verbatim blocks, tables and synopses are left out."""

    def __init__(self) -> None:
        self.sections: list[Section] = [[]]
        self.until = ""  # the request that ends the block being left out
        self.text: list[str] = []
        self.tag = False  # the next line is a tagged paragraph's tag

    def end_paragraph(self) -> None:
        paragraph = plain(" ".join(self.text))
        if paragraph:
            self.sections[-1].append(paragraph)
        self.text = []

    def add(self, text: str) -> None:
        self.text.append(text)
        if self.tag:
            self.tag = False
            self.end_paragraph()

    def request(self, name: str, arguments: str) -> None:
        if name in VERBATIM:
            self.end_paragraph()
            self.until = VERBATIM[name]
        elif name in SECTION or name in PARAGRAPH:
            self.end_paragraph()
            self.tag = name in ("TP", "TQ")
            if name in SECTION:
                self.sections.append([])
        elif name in FONTS:
            self.add(" ".join(words(arguments)))
        elif name in MIXED:
            self.add("".join(words(arguments)))
        elif name in ("UE", "ME"):
            self.add(arguments)

    def line(self, line: str) -> None:
        request = re.match(r"[.']\s*(\w+|\.)?\s*(.*)", line)
        name = (request[1] or "") if request else ""
        if self.until:
            self.until = "" if name == self.until else self.until
        elif request:
            self.request(name, request[2])
        elif line.strip():
            self.add(line)
        else:
            self.end_paragraph()


def sections(page: str) -> list[Section]:
    """The page's sections, each a list of paragraphs; none for a page in other macros or a link."""
    if not re.search(r"^\.TH ", page, re.MULTILINE):
        return []
    reader = Reader()
    for line in page.splitlines():
        reader.line(line)
    reader.end_paragraph()
    return reader.sections
