"""Evidence that verifies: consistent documents, to be spoiled one edit at a time."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from governance.evidence.checklists import (
    JWT_CONTROLS,
    JWT_SECTIONS,
    JWT_SOURCE,
    SANITY_DIMENSIONS,
    SSDF_PRACTICES,
    SSDF_SOURCE,
    Repository,
)
from governance.evidence.failure_injection import SCENARIOS
from governance.evidence.key_rotation import OUTCOMES
from governance.evidence.load_results import rounded
from governance.evidence.materials import (
    BILLS,
    DEVELOPMENT,
    RUNTIME,
    SOURCE,
    build_purl,
    state_source,
)
from governance.evidence.registry import World
from governance.evidence.stress import ENDPOINTS, READS
from governance.evidence.telemetry import MATRICES, evidence_hash

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
CAPTURED = "2026-11-26T11:00:00+00:00"
_SHARES = (Decimal("0.5"), Decimal("1.375"), Decimal("4.5"))
"""Half of a run's answers, nearly all others, and one of fifty, as parts of their mean."""
FILES = {
    "docs/architecture.md": "text",
    "tests/unit/kernel/test_money.py": "def test_amounts_are_exact() -> None:\n    assert True\n",
    "requirements.txt": "# What it runs on.\nDjango==5.2.19\ncelery[redis]==5.7.0  # jobs\n",
    "requirements-dev.txt": "-r requirements.txt\npytest==9.2.0\n",
}
TEST = "tests/unit/kernel/test_money.py::test_amounts_are_exact"


COMMIT = "a" * 40
SOURCE_SHA256 = "5" * 64
JUNIT = (
    b"<?xml version='1.0'?><testsuites><testsuite tests='3' failures='0'>"
    b"<testcase name='a'/><testcase name='b'><system-out>x</system-out></testcase>"
    b"<testcase name='c'/></testsuite></testsuites>"
)
LOG = b"3 passed\n"


def build_bill(pins: dict[str, str]) -> bytes:
    """Return a bill of materials that lists what is pinned."""
    components = [
        {"type": "library", "name": name, "version": version, "purl": build_purl(name, version)}
        for name, version in pins.items()
    ]
    document = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components}
    return json.dumps(document).encode()


RUNS_ON = {"Django": "5.2.19", "celery": "5.7.0"}
BESIDE = {
    "ci_green.junit.xml": JUNIT,
    "ci_green.log": LOG,
    RUNTIME: build_bill(RUNS_ON),
    DEVELOPMENT: build_bill({**RUNS_ON, "pytest": "9.2.0"}),
    SOURCE: state_source(SOURCE_SHA256),
}
ARTIFACTS = {name: BESIDE[name] for name in (*BILLS, SOURCE)}


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def build_world(
    *, signers: dict[str, str] | None = None, beside: dict[str, bytes] | None = None
) -> World:
    return World(
        now=NOW,
        repository=Repository(has=FILES.__contains__, read=FILES.get),
        signers=signers or {},
        beside=(BESIDE if beside is None else beside).get,
        source={COMMIT: SOURCE_SHA256}.get,
    )


def stress() -> dict[str, Any]:
    """Return three rounds of thirty seconds: 315, 350 and 385 requests, one failure each."""
    runs = [
        {
            "run_index": index,
            "captured_at": f"2026-11-26T10:{58 + index // 2}:{index % 2 * 30:02}+00:00",
            "results": _results(ENDPOINTS, total, seconds=30, failed=1),
        }
        for index, total in enumerate((315, 350, 385), start=1)
    ]
    return {
        "profile": "enforcement",
        "runner": "manage.py capture_evidence stress",
        "captured_at": CAPTURED,
        "duration_seconds": 30,
        "concurrent_users": 10,
        "rounds": 3,
        "endpoints": list(ENDPOINTS),
        "preflight": {"enabled": True, "passed": True, "failures": []},
        "runtime": {
            "database_engine": "postgresql",
            "database_version": "18.6",
            "python": "3.11.7",
            "django": "5.2.19",
        },
        "floor": {
            "endpoint": "/health/live",
            "results": _results(["/health/live"], 2000, seconds=10, failed=0),
            "reads_results": _results(READS, 600, seconds=10, failed=0),
            "reads_share_of_floor": Decimal("0.3000"),
        },
        "runs": runs,
        "results": {
            "total_requests": 1050,
            "successful_requests": 1047,
            "failed_requests": 3,
            "p95_response_time": Decimal("1.3095"),
            "p99_response_time": Decimal("4.2857"),
            "throughput_rps": Decimal("11.6667"),
        },
        "min_throughput_rps": Decimal("10.5000"),
        "thresholds": {
            "max_p95_seconds": Decimal("2.0"),
            "max_error_rate_percent": Decimal("1.0"),
            "min_throughput_rps": Decimal("0.5"),
        },
        "evaluation": {
            "rounds": [{"meets_targets": True} for _ in runs],
            "overall_meets_targets": True,
            "worst_p95_seconds": Decimal("1.3095"),
            "min_throughput_rps": Decimal("10.5000"),
        },
        "meets_targets": True,
    }


def _results(endpoints: Sequence[str], total: int, *, seconds: int, failed: int) -> dict[str, Any]:
    """Return what ten users saw who asked without a pause: their times add up to the run's."""
    each, slow = total // len(endpoints), total // 50
    mean = Decimal(10 * seconds) / total
    quick, usual, late = (rounded(mean * share) for share in _SHARES)
    histogram = [[quick, total // 2], [usual, total - total // 2 - slow], [late, slow]]
    return {
        "total_requests": total,
        "successful_requests": total - failed,
        "failed_requests": failed,
        "elapsed_seconds": Decimal(f"{seconds}.0"),
        "throughput_rps": rounded(Decimal(total) / seconds),
        "p95_response_time": usual,
        "p99_response_time": late,
        "response_time_sum": sum(bound * count for bound, count in histogram),
        "latency_histogram": histogram,
        "by_endpoint": [
            {"endpoint": endpoint, "requests": each, "failures": failed if not index else 0}
            for index, endpoint in enumerate(endpoints)
        ],
        "failures_by_status": [[500, failed]] if failed else [],
    }


def failure_injection() -> dict[str, Any]:
    return {
        "profile": "enforcement_failure_injection",
        "runner": "staged_failure_injection",
        "execution_class": "staged",
        "captured_at": CAPTURED,
        "executed_by": "sre.executor",
        "approved_by": "release.approver",
        "scenarios": [
            {
                "id": name,
                "status": "passed",
                "duration_seconds": Decimal("1.5"),
                "checks": [{"test": test, "outcome": "passed"} for test in tests],
                "evidence_refs": list(tests),
            }
            for name, tests in SCENARIOS.items()
        ],
        "summary": {
            "total_scenarios": 5,
            "passed_scenarios": 5,
            "failed_scenarios": 0,
            "overall_passed": True,
        },
    }


OLD, NEW, LAST = "approval-1", "approval-2", "approval-3"
DRILL = (
    ("issued", OLD, "spent", None, None),
    ("issued", OLD, "kept", None, None),
    ("issued", OLD, "late", None, None),
    ("presented", OLD, "spent", 200, None),
    ("rotated", NEW, None, None, None),
    ("issued", NEW, "new", None, None),
    ("presented", OLD, "kept", 200, None),
    ("presented", OLD, "spent", 409, "approval_token_replayed"),
    ("retired", NEW, None, None, None),
    ("presented", NEW, "new", 401, "approval_token_invalid"),
    ("issued", OLD, "back", None, None),
    ("presented", OLD, "back", 200, None),
    ("rotated", LAST, None, None, None),
    ("retired", OLD, None, None, None),
    ("presented", OLD, "late", 401, "approval_token_invalid"),
)


def key_rotation_drill() -> dict[str, Any]:
    steps = []
    for minute, step in enumerate(DRILL):
        named = zip(("did", "kid", "token", "status", "code"), step, strict=True)
        at = f"2026-11-26T10:{minute:02}:00+00:00"
        steps.append({"at": at, **{name: value for name, value in named if value is not None}})
    return {
        "profile": "key_rotation_drill",
        "runner": "manage.py capture_evidence key_rotation_drill",
        "executed_at": CAPTURED,
        "owner": "platform.owner",
        "approver": "security.approver",
        "keys": {"before": OLD, "after": LAST},
        "outcomes": dict.fromkeys(OUTCOMES, True),
        "steps": steps,
        "post_drill_status": "PASS",
        "next_drill_due_on": "2027-03-01",
    }


def jwt_bcp() -> dict[str, Any]:
    return {
        "profile": "jwt_bcp",
        "source": JWT_SOURCE,
        "controls": [
            {
                "id": name,
                "sections": list(JWT_SECTIONS[index :: len(JWT_CONTROLS)]),
                "status": "implemented",
                "how": "so",
                "evidence": [TEST],
            }
            for index, name in enumerate(JWT_CONTROLS)
        ],
    }


def ssdf_traceability() -> dict[str, Any]:
    return {
        "profile": "ssdf_traceability",
        "source": SSDF_SOURCE,
        "practices": [
            {"id": name, "status": "partial", "how": "so", "evidence": ["docs/architecture.md"]}
            for name in SSDF_PRACTICES
        ],
    }


def post_closure_sanity() -> dict[str, Any]:
    return {
        "profile": "post_closure_sanity",
        "dimensions": [
            {"id": name, "question": "does it hold?", "tests": [TEST]} for name in SANITY_DIMENSIONS
        ],
    }


def ci_green() -> dict[str, Any]:
    return {
        "profile": "ci_green",
        "command": ".ci/run",
        "commit": COMMIT,
        "is_clean": True,
        "captured_at": CAPTURED,
        "duration_seconds": Decimal("200.5"),
        "exit_code": 0,
        "tests": {"passed": 3, "failed": 0, "skipped": 0},
        "junit": {"name": "ci_green.junit.xml", "sha256": sha256(JUNIT)},
        "log": {"name": "ci_green.log", "sha256": sha256(LOG)},
    }


def telemetry_c1() -> dict[str, Any]:
    document = {
        "phase": "C1",
        "failure_matrix": "FULL",
        "executed_injections": list(MATRICES["FULL"]),
        "total_injections": 22,
        "violations": [],
        "all_invariants_held": True,
        "certification_ready": True,
        "timestamp_utc": CAPTURED,
        "injections": [
            {
                "injection_id": one,
                "invariants_passed": True,
                "replay_hash_verified": True,
                "o1_available": True,
                "restored": True,
                "incidents_changed": False,
                "probes_run": ["truth-independence", "ledger-verifies"],
                "probes_passed": 2,
                "probes_failed": 0,
            }
            for one in MATRICES["FULL"]
        ],
    }
    return {**document, "evidence_hash": evidence_hash(document)}


def captured_at(document: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return a copy whose moments are all as long before a moment as they are before ``NOW``."""
    return dict(_moved(document, now - NOW))


def _moved(value: Any, by: timedelta) -> Any:
    if isinstance(value, dict):
        return {name: _moved(child, by) for name, child in value.items()}
    if isinstance(value, list):
        return [_moved(child, by) for child in value]
    if isinstance(value, str) and value.startswith("2026-11-26T"):
        return (datetime.fromisoformat(value) + by).isoformat()
    return value


def edited(document: dict[str, Any], pointer: str, value: Any) -> dict[str, Any]:
    """Return a copy with the value at a pointer replaced; with ``...`` it is removed.

    What lies beside the way to the pointer is shared with the document.
    """
    edit = copy.copy(document)
    *path, last = pointer.split("/")[1:]
    target: Any = edit
    for part in path:
        key: Any = int(part) if isinstance(target, list) else part
        target[key] = copy.copy(target[key])
        target = target[key]
    key = int(last) if isinstance(target, list) else last
    if value is ...:
        del target[key]
    else:
        target[key] = value
    return edit
