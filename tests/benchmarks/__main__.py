"""``make bench``: measure, and write docs/ops/benchmarks.json and docs/benchmarks.md.

Sections that are not measured keep their figures of the last run in the report.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.benchmarks.stack import running_stack

NAMES = ("throughput", "half_load", "endpoints", "history", "decide")


def main() -> int:
    """Run the sections asked for; 0 when all goals that were measured are reached, else 1."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it work at all")
    parser.add_argument("--only", default=",".join(NAMES), help=f"of {','.join(NAMES)}")
    parser.add_argument("--history", type=int, help="decisions of the long history, not a million")
    parser.add_argument("--out", type=Path, help="folder of the report instead of docs/")
    parser.add_argument("--step", default="", help="also keep the figures under this name")
    options = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - began:6.1f} s] {text}\n")
        sys.stdout.flush()

    wanted = [name for name in NAMES if name in options.only.split(",")]
    with running_stack() as stack:
        say("database and web server are up")
        # Models exist once the stack has set this process up.
        from tests.benchmarks import running

        return running.run(stack, wanted, options, say)


if __name__ == "__main__":
    sys.exit(main())
