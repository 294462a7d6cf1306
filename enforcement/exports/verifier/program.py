"""Verifies an export of Valdrix with Python 3.11 or newer and ``cryptography``, and nothing else.

    python verify_export.py ARCHIVE --public-key KEY [--checkpoint FILE ...]
    python verify_export.py --ledger ledger.csv --public-key KEY --checkpoint FILE [...]

ARCHIVE is the ZIP, or a directory that holds its nine files. KEY is the raw Ed25519 public key in
base64url; several may be given while keys rotate. Nothing that the files say about their key is
believed. Exit code 0: everything holds; 1: the first place that does not is named; 2: used wrongly.
Rows are counted as a spreadsheet shows them: the header is row 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from enforcement.exports.verifier.checks import Report, verify, verify_ledger
from enforcement.exports.verifier.files import Refused


def describe(report: Report) -> str:
    """Return what was verified, for people."""
    rows = ", ".join(f"{count} in {name}" for name, count in report.rows.items())
    reach = f"sequences {report.first_sequence} to {report.last_sequence}"
    lines = [
        f"tenant {report.tenant_id}",
        f"rows: {rows}",
        f"ledger: {reach}, last hash {report.last_hash}",
        f"checkpoints kept elsewhere that agree: {report.checkpoints}",
    ]
    if report.key_id:
        start, end = report.window
        part = ", of which the limit left out decisions" if report.truncated else ""
        lines.append(f"window: {start} to {end}{part}; as the ledger stood at {report.position}")
        lines.append(f"signed by key {report.key_id}")
    return "\n".join(lines)


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main(arguments: list[str] | None = None) -> int:
    """Verify what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description="Verify an export of Valdrix offline.")
    parser.add_argument("archive", type=Path, help="the ZIP, or the directory of its files")
    parser.add_argument("--public-key", action="append", required=True, metavar="BASE64URL")
    parser.add_argument("--checkpoint", action="append", default=[], type=Path, metavar="FILE")
    parser.add_argument("--ledger", action="store_true", help="it is a ledger.csv by itself")
    options = parser.parse_args(arguments)
    check = verify_ledger if options.ledger else verify
    try:
        report = check(
            options.archive,
            options.public_key,
            checkpoints=options.checkpoint,
            progress=lambda rows: _tell(f"{rows} ledger rows ..."),
        )
    except Refused as refusal:
        _tell(f"REFUSED {refusal}")
        return 1
    except (OSError, ValueError) as error:
        _tell(f"cannot verify: {error}")
        return 2
    sys.stdout.write(f"VERIFIED\n{describe(report)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
