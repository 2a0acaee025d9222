"""Run the benchmarks of docs/performance.md one after another, each in its own process.

    python scripts/bench                          # BART-base shape, on this machine
    python scripts/bench --shape mini --json outputs/bench
    python scripts/bench --parts train beam

Every part prints its speed relative to PEFT or transformers.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from shapes import SHAPES

PARTS = ("train", "beam", "evaluation")
FOLDER = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", type=Path, help="a folder for the results")
    options = parser.parse_args()
    codes = []
    for part in options.parts:
        command = [sys.executable, str(FOLDER / f"{part}.py"), "--shape", options.shape]
        if options.json:
            options.json.mkdir(parents=True, exist_ok=True)
            command += ["--json", str(options.json / f"{part}.json")]
        print(f"\n{part}, {options.shape} shape", flush=True)
        codes.append(subprocess.run(command, check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
