"""``make fuzz``: every operation of the description against a live server, all of schemathesis's checks.

``python -m tests.fuzz.running --examples 500`` starts a PostgreSQL and a web server of its own, and
another pair for the walks along the links: ``--walks N``, 0 for none.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.crash.stack import running_stack
from tests.fuzz.walking import Walked, Walker, open_policy

CONFIGURATION = Path(__file__).parent / "schemathesis.toml"
PATIENCE_SECONDS = 10
ENDS_ITSELF = "^(rotate_api_key|revoke_api_key|remove_member|change_role)$"
"""Operations that may end the credential of the run itself; they have a run of their own at the end."""


def fuzz(
    *, examples: int, phases: str, only: str | None = None, patience_seconds: int = PATIENCE_SECONDS
) -> tuple[int, str]:
    """Fuzz the API and return the exit code and what schemathesis said.

    :param examples: how many generated examples an operation gets.
    :param phases: schemathesis's own names, separated by commas.
    :param only: a regular expression of operation ids; None means all of them.
    :param patience_seconds: how long an answer may take; more where others stop this machine.
    """
    with running_stack(_environment()) as stack, tempfile.TemporaryDirectory() as folder:
        base = (
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file",
            str(CONFIGURATION),
            "run",
            f"http://127.0.0.1:{stack.port}/api/schema",
            "--header",
            f"Authorization: Bearer {stack.owner_key}",
            "--checks=all",
            f"--phases={phases}",
            f"--max-examples={examples}",
            "--continue-on-failure",
            "--workers=1",
            f"--request-timeout={patience_seconds}",
            f"--max-response-time={patience_seconds}",
            "--generation-database=none",
            "--no-color",
        )
        if only is not None:
            return _run((*base, "--include-operation-id-regex", only), folder)
        code, said = _run((*base, "--exclude-operation-id-regex", ENDS_ITSELF), folder)
        last_code, last_said = _run((*base, "--include-operation-id-regex", ENDS_ITSELF), folder)
        return code or last_code, said + last_said


def walk(walks: int, *, patience_seconds: int = PATIENCE_SECONDS) -> Walked:
    """Walk along the links of the description, as an owner, and return what became of it."""
    with running_stack(_environment()) as stack:
        open_policy(stack.target(stack.owner_key))
        url = f"http://127.0.0.1:{stack.port}"
        return Walker(url, stack.owner_key, patience_seconds=patience_seconds).walk(walks)


def _environment() -> dict[str, str]:
    """Return settings under which no limit is in the way and everything can be stored and signed."""
    return {
        "TENANT_API_PER_MINUTE": "6000000",
        "RATE_LIMIT_PER_MINUTE": "1000000",
        "ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP": "100000",
        "ENFORCEMENT_GLOBAL_GATE_PER_MINUTE_CAP": "10000000",
        "ENFORCEMENT_EXPORT_SIGNING_KEY": secrets.token_urlsafe(32),
        "ENFORCEMENT_EXPORT_SIGNING_KID": "fuzz",
        "SECRET_SEALING_KEYS": secrets.token_urlsafe(32),
    }


def _run(command: Sequence[str], folder: str) -> tuple[int, str]:
    done = subprocess.run(
        command,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def main() -> int:
    """Fuzz as the arguments say and return schemathesis's exit code."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--phases", default="examples,coverage,fuzzing,stateful")
    parser.add_argument("--only", help="a regular expression of operation ids")
    parser.add_argument("--walks", type=int, default=600)
    parser.add_argument("--patience", type=int, default=PATIENCE_SECONDS, metavar="SECONDS")
    options = parser.parse_args()
    is_good = True
    if options.walks:
        walked = walk(options.walks, patience_seconds=options.patience)
        sys.stdout.write(walked.render())
        sys.stdout.flush()
        is_good = walked.is_good
    if not options.examples:
        return 0 if is_good else 1
    code, said = fuzz(
        examples=options.examples,
        phases=options.phases,
        only=options.only,
        patience_seconds=options.patience,
    )
    sys.stdout.write(said)
    return code or (0 if is_good else 1)


if __name__ == "__main__":
    sys.exit(main())
