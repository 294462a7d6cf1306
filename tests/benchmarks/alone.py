"""``decide`` by itself: no database, no web, 20 rules of which five in CEL."""

from __future__ import annotations

import statistics
import time
from typing import Any, Final

from enforcement.gate.decision import decide
from tests.benchmarks.policies import SECTIONS
from tests.benchmarks.world import GATE_BODY
from tests.builders import a_budget, a_context, a_grant, a_policy, some_accounts

_WARM_UP: Final = 500


def time_decide(*, calls: int) -> dict[str, Any]:
    """Return the microseconds that one call takes: median, 95th and 99th percentile."""
    policy = a_policy(**SECTIONS)
    context = a_context(
        environment="nonprod",
        metadata=GATE_BODY["metadata"],
        accounts=some_accounts(budgets=(a_budget(1), a_budget(2)), grants=(a_grant(),)),
    )
    for _ in range(_WARM_UP):
        decide(context, policy)
    taken = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        decide(context, policy)
        taken.append(time.perf_counter_ns() - began)
    parts = statistics.quantiles(taken, n=100)
    return {
        "calls": calls,
        "rules": sum(len(value) for value in SECTIONS.values() if isinstance(value, list)),
        "rules_in_cel": len(SECTIONS["rules"]),
        "median_us": round(statistics.median(taken) / 1000, 1),
        "p95_us": round(parts[94] / 1000, 1),
        "p99_us": round(parts[98] / 1000, 1),
    }
