"""Decide what stands on standard input again, in a process of its own, as replay does.

Reads a JSON list of ``[context, policy]`` texts and prints a JSON list of outcomes.
"""

from __future__ import annotations

import sys

import msgspec

from enforcement.gate.decision import decide, decode_context, encode
from governance.policies.domain import Policy


def main() -> None:
    """Answer each pair with its outcome's stored form."""
    pairs = msgspec.json.decode(sys.stdin.buffer.read(), type=list[tuple[str, str]])
    outcomes = [
        encode(decide(decode_context(context), msgspec.json.decode(policy, type=Policy)))
        for context, policy in pairs
    ]
    sys.stdout.buffer.write(msgspec.json.encode(outcomes))


if __name__ == "__main__":
    main()
