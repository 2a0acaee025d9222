"""One self-contained page of everything that run folders say: tables, curves, tests, predictions.

`page.py` assembles it from the parts: `markup.py` (tables), `charts.py` (SVG), `payload.py`
(predictions). Text from run folders only enters escaped, and the page's content security policy
lets no script run but its own.
"""

from unipeft_run.report.html.page import render_page

__all__ = ["render_page"]
