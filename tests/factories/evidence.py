"""What a certification sees when all is well."""

from __future__ import annotations

from valdrix.certification.telemetry.judging import Facts

FACTS = Facts(
    asked=18,
    decided=18,
    answers_sha256="a",
    reference_sha256="a",
    ledger_fault=None,
    books_fault=None,
    replayed=18,
    differing=0,
    replay_sha256=("r", "r"),
    incidents=0,
    telemetry_incidents=0,
    slowest_ms=1_500,
    slowest_allowed_ms=1_500,
    timed_out=0,
    unavailable=(),
    truth_sha256=("t", "t"),
)
