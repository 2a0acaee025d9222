"""Fetch all data and weights of scale=mini now, to use them offline later."""

from __future__ import annotations

import sys

from unipeft_run.errors import UserError
from unipeft_run.miniatures.sources import DATA, fetch, fetch_backbone

try:
    for name in DATA:
        print(fetch(name))
    print(fetch_backbone("roberta_mini"))
except UserError as problem:
    sys.exit(str(problem))
