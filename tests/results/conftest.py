"""The modules of scripts/results are imported by name, as its command does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "results"))
