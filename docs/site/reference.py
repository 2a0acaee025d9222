"""A MkDocs hook: expand the directives of the reference pages.

A page names a public object as `::: unipeft.attach`. The packages import it on first use, which
mkdocstrings cannot follow, because it only parses the source. So the directive is rewritten with
the module from the package's table `_MODULES`. `<!-- choices: form -->` becomes a table of the
files in conf/form/.
"""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
LOG = logging.getLogger("mkdocs.plugins.reference")
PAGES = {"reference/unipeft.md": "unipeft", "reference/unipeft_run.md": "unipeft_run"}
DIRECTIVE = re.compile(r"^::: (unipeft|unipeft_run)\.(\w+)$", re.MULTILINE)
CHOICES = re.compile(r"^<!-- choices: (\w+) -->$", re.MULTILINE)
FIRST_COMMENT = re.compile(r"^# (.*)$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Expand the directives of a page; warn about a public name that its page leaves out."""
    markdown = CHOICES.sub(lambda match: _table(match.group(1)), markdown)
    if package := PAGES.get(page.file.src_uri):
        shown = {name for root, name in DIRECTIVE.findall(markdown) if root == package}
        for name in sorted(public_names(package).keys() - shown):
            LOG.warning("%s: %s.%s is public but not documented", page.file.src_uri, package, name)
    return DIRECTIVE.sub(_directive, markdown)


def public_names(package: str) -> dict[str, str]:
    """Return the public names of a package, each with the full path of its object."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    tables = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MODULES"
    )
    return {
        name: f"unipeft_run.{module}.{name}"
        for name, module in ast.literal_eval(next(tables)).items()
    }


def _directive(match: re.Match[str]) -> str:
    package, name = match.groups()
    path = public_names(package).get(name)
    if path is None:
        LOG.warning("%s.%s is not a public name", package, name)
        return ""
    return f"::: {path}\n    options:\n      heading: {package}.{name}\n      toc_label: {name}\n"


def _table(group: str) -> str:
    """Return a table of the choices of a group: the name and the first comment of each file."""
    rows = ["| name | what it is |", "| --- | --- |"]
    for file in sorted((ROOT / "conf" / group).glob("*.yaml")):
        comment = FIRST_COMMENT.search(file.read_text(encoding="utf-8"))
        text = comment.group(1).replace("|", r"\|") if comment else ""
        rows.append(f"| `{file.stem}` | {text} |")
    return "\n".join(rows)
