"""Render finished runs as one self-contained page: tables, curves, tests, predictions.

`page.py` assembles it from the parts: `markup.py` (tables), `charts.py` (SVG), `payload.py`
(predictions). Text from run folders is always escaped, and the page's content security policy
allows only its own script.
"""

from unipeft_run.report.html.page import render_page

__all__ = ["render_page"]
