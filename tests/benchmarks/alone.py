"""``decide`` by itself: no database, no web, 20 rules of which five in CEL.

In turn with it, a view that does nothing, in the same thread and without a server: what a
microsecond is worth differs from one machine to the next, and from minute to minute.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

from django.core.handlers.wsgi import WSGIHandler

from enforcement.gate.decision import decide
from tests.benchmarks.measuring import EMPTY, NotMeasured
from tests.benchmarks.policies import SECTIONS
from tests.benchmarks.world import GATE_BODY
from tests.builders import a_budget, a_context, a_grant, a_policy, some_accounts

_WARM_UP: Final = 500
_TURN: Final = 100
_VIEWS_A_TURN: Final = 10


def time_decide(*, calls: int) -> dict[str, Any]:
    """Return the microseconds that one call takes: median, 95th and 99th percentile.

    And those of the view that does nothing, and what part of its median the median is.
    """
    policy = a_policy(**SECTIONS)
    context = a_context(
        environment="nonprod",
        metadata=GATE_BODY["metadata"],
        accounts=some_accounts(budgets=(a_budget(1), a_budget(2)), grants=(a_grant(),)),
    )
    view = _empty_view()
    taken: list[float] = []
    floor: list[float] = []
    for _ in range(_WARM_UP):
        decide(context, policy)
    for _ in range(calls // _TURN):
        taken.extend(_time(lambda: decide(context, policy)) for _ in range(_TURN))
        floor.extend(_time(view) for _ in range(_VIEWS_A_TURN))
    parts = statistics.quantiles(taken, n=100)
    median, floor_median = statistics.median(taken), statistics.median(floor)
    return {
        "calls": len(taken),
        "rules": sum(len(value) for value in SECTIONS.values() if isinstance(value, list)),
        "rules_in_cel": len(SECTIONS["rules"]),
        "median_us": round(median, 1),
        "p95_us": round(parts[94], 1),
        "p99_us": round(parts[98], 1),
        "empty_view_us": round(floor_median, 1),
        "of_empty_view": round(median / floor_median, 3),
    }


def _time(act: Callable[[], object]) -> float:
    """Return how many microseconds one call takes."""
    began = time.perf_counter_ns()
    act()
    return (time.perf_counter_ns() - began) / 1000


def _empty_view() -> Callable[[], None]:
    """Return what asks the view that does nothing once, through all middleware.

    :raises NotMeasured: when it does not answer 200.
    """
    application, content = WSGIHandler(), b"{}"
    asked = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": EMPTY,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_AUTHORIZATION": "Bearer nobody",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(content)),
        "wsgi.url_scheme": "http",
    }
    statuses: list[str] = []

    def ask() -> None:
        answer = application(
            {**asked, "wsgi.input": io.BytesIO(content)},
            lambda status, headers: statuses.append(status),
        )
        b"".join(answer)
        answer.close()
        status = statuses.pop()
        if status != "200 OK":
            raise NotMeasured(f"the view that does nothing answered {status}")

    return ask
