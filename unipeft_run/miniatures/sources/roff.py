"""Parse manual pages (man macros) into sections of plain paragraphs, to align two languages."""

from __future__ import annotations

import re

Section = list[str]

SECTION = {"SH", "SS"}
PARAGRAPH = {"P", "PP", "LP", "TP", "TQ", "IP", "HP", "RS", "RE", "sp", "br", "ti", "in"}
FONTS = {"B", "I", "R", "SM", "SB"}  # words in one font, joined by spaces
ALTERNATING = {
    "BI",
    "BR",
    "IB",
    "IR",
    "RB",
    "RI",
}  # words in two fonts, joined without spaces
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


def strip_escapes(text: str) -> str:
    """Remove or replace roff's escapes and collapse white space."""
    text = re.sub(r'\\".*', "", text)
    for pattern, replacement in UNESCAPE:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


def split_arguments(arguments: str) -> list[str]:
    """Split a macro's arguments at spaces outside double quotes."""
    found = re.findall(r'"((?:[^"]|"")*)"?|(\S+)', arguments)
    return [quoted.replace('""', '"') or bare for quoted, bare in found]


class Reader:
    """Reads a page line by line. Verbatim blocks, tables and synopses are skipped."""

    def __init__(self) -> None:
        self.sections: list[Section] = [[]]
        self.until = ""  # the request that ends the skipped block
        self.text: list[str] = []
        self.tag = False  # whether the next line is a tagged paragraph's tag

    def end_paragraph(self) -> None:
        paragraph = strip_escapes(" ".join(self.text))
        if paragraph:
            self.sections[-1].append(paragraph)
        self.text = []

    def add_text(self, text: str) -> None:
        self.text.append(text)
        if self.tag:
            self.tag = False
            self.end_paragraph()

    def read_request(self, name: str, arguments: str) -> None:
        if name in VERBATIM:
            self.end_paragraph()
            self.until = VERBATIM[name]
        elif name in SECTION or name in PARAGRAPH:
            self.end_paragraph()
            self.tag = name in ("TP", "TQ")
            if name in SECTION:
                self.sections.append([])
        elif name in FONTS:
            self.add_text(" ".join(split_arguments(arguments)))
        elif name in ALTERNATING:
            self.add_text("".join(split_arguments(arguments)))
        elif name in ("UE", "ME"):
            self.add_text(arguments)

    def read_line(self, line: str) -> None:
        request = re.match(r"[.']\s*(\w+|\.)?\s*(.*)", line)
        name = (request[1] or "") if request else ""
        if self.until:
            self.until = "" if name == self.until else self.until
        elif request:
            self.read_request(name, request[2])
        elif line.strip():
            self.add_text(line)
        else:
            self.end_paragraph()


def parse_sections(page: str) -> list[Section]:
    """Return the page's sections, lists of paragraphs; [] for a link or a page in other macros."""
    if not re.search(r"^\.TH ", page, re.MULTILINE):
        return []
    reader = Reader()
    for line in page.splitlines():
        reader.read_line(line)
    reader.end_paragraph()
    return reader.sections
