"""Decide what stands on standard input while everything that reaches outside is watched.

Reads a JSON list of ``[context, policy]`` texts; prints a JSON object with the outcomes and with
what was reached for: files, sockets, processes, imports, the clock, chance. With ``--plant`` one
look at the clock and one socket are planted, to see that they are noticed.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import sys
import time
import uuid
from typing import Any

import msgspec

from enforcement.gate import decision
from governance.policies.domain import Policy

WATCHED = ("open", "socket.", "subprocess.", "os.", "import", "urllib.", "ctypes.", "shutil.")
ASKED = (
    (time, ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "localtime", "gmtime")),
    (random, ("random", "randint", "choice", "getrandbits")),
    (secrets, ("token_bytes", "token_hex")),
    (uuid, ("uuid1", "uuid4")),
    (os, ("urandom", "getenv")),
)


def main() -> None:
    """Decide every pair, watched."""
    pairs = msgspec.json.decode(sys.stdin.buffer.read(), type=list[tuple[str, str]])
    questions = [
        (decision.decode_context(context), msgspec.json.decode(policy, type=Policy))
        for context, policy in pairs
    ]
    # The first decision loads what is loaded lazily, and compiles rules; the watched ones follow.
    expected = [decision.encode(decision.decide(*question)) for question in questions]
    seen: list[str] = []
    if "--plant" in sys.argv:
        whole = decision._mode

        def planted(*arguments: Any) -> Any:
            time.time()
            socket.socket().close()
            return whole(*arguments)

        decision._mode = planted
    _watch(seen)
    outcomes = [decision.encode(decision.decide(*question)) for question in questions]
    found, done = list(seen), outcomes == expected
    sys.stdout.buffer.write(
        msgspec.json.encode({"same": done, "outcomes": len(outcomes), "reached": found})
    )


def _watch(seen: list[str]) -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(WATCHED):
            seen.append(event)

    for module, names in ASKED:
        for name in names:
            setattr(module, name, _noting(f"{module.__name__}.{name}", getattr(module, name), seen))
    sys.addaudithook(hook)


def _noting(name: str, whole: Any, seen: list[str]) -> Any:
    def note(*arguments: Any, **options: Any) -> Any:
        seen.append(name)
        return whole(*arguments, **options)

    return note


if __name__ == "__main__":
    main()
