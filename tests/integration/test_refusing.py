"""A flood is refused at the edge: no statement, no view, as long as the limit refuses for certain."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from governance.api import throttling
from tests.factories.tenants import World
from valdrix.kernel.http import refusing
from valdrix.kernel.http import throttling as by_address
from valdrix.kernel.http.refusing import RefusingApplication
from valdrix.kernel.http.yielding import COMES_LAST
from valdrix.kernel.metrics import render_metrics
from valdrix.kernel.throttling.limiter import Limiter
from valdrix.kernel.throttling.shared_file import SharedFile

GATE = "/api/v1/enforcement/gate/terraform"
BODY = {
    "project_id": "shop", "environment": "dev", "resource_reference": "x",
    "estimated_monthly_delta_usd": "1.00", "dry_run": True,
}  # fmt: skip


class Clock:
    """A clock that goes only when it is told to."""

    now = 5000.001

    def __call__(self) -> float:
        return self.now


class Edge:
    """The application as gunicorn serves it, counting what came through to Django."""

    def __init__(self, limiter: Limiter) -> None:
        self._django = get_wsgi_application()
        self._application = RefusingApplication(self._count, limiter=lambda: limiter)
        self.came_through = 0
        self.came_last: list[bool] = []

    def _count(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        self.came_through += 1
        self.came_last.append(COMES_LAST in environ)
        return self._django(environ, start_response)

    def ask(
        self,
        key: str | None = None,
        *,
        path: str = GATE,
        method: str = "POST",
        address: str = "198.51.100.1",
        **headers: str,
    ) -> tuple[int, dict[str, str], Any]:
        """Send one request and return its status, headers and document."""
        body = orjson.dumps(BODY)
        if key is not None:
            headers["HTTP_AUTHORIZATION"] = f"Bearer {key}"
        environ = RequestFactory().generic(
            method, path, body, content_type="application/json", REMOTE_ADDR=address, **headers
        ).environ  # fmt: skip
        environ["wsgi.input"] = self.sent = io.BytesIO(body)
        said: list[Any] = []
        answer = self._application(environ, lambda *given: said.extend(given))
        content = b"".join(answer)
        close = getattr(answer, "close", None)
        if close is not None:
            close()
        return int(said[0][:3]), dict(said[1]), orjson.loads(content) if content else None


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def edge(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> Iterator[Edge]:
    """Let limits count for this test alone: one gate of each tenant a second."""
    settings.ENFORCEMENT_TENANT_GATE_PER_SECOND_CAP = 1
    counts = Limiter(in_redis=None, in_file=SharedFile(tmp_path, clock=clock), clock=clock)
    monkeypatch.setattr(throttling, "limiter", lambda: counts)
    monkeypatch.setattr(by_address, "limiter", lambda: counts)
    yield Edge(counts)
    counts.close()


def counted(line: str) -> float:
    lines = [found for found in render_metrics().decode().splitlines() if found.startswith(line)]
    return sum(float(found.rsplit(" ", 1)[1]) for found in lines)


def test_a_refused_flood_comes_no_further_than_the_edge(
    edge: Edge, clock: Clock, tenant: World, other_tenant: World
) -> None:
    assert [edge.ask(tenant.key)[0] for _ in range(2)] == [200, 429]
    whole_way = edge.ask(other_tenant.key) and edge.ask(other_tenant.key)
    seen = edge.came_through
    by_kind = 'rate_limit_rejections_total{limit="gate_tenant"}'
    by_route = (
        'request_count_total{method="POST",route="api/v1/enforcement/gate/terraform",status="429"}'
    )
    before = counted(by_kind), counted(by_route)
    with CaptureQueriesContext(connection) as queries:
        answers = [edge.ask(tenant.key) for _ in range(20)]
    assert (edge.came_through, len(queries)) == (seen, 0)
    assert (counted(by_kind), counted(by_route)) == (before[0] + 20, before[1] + 20)
    for status, headers, problem in answers:
        assert (status, headers["Retry-After"]) == (429, "2")
        assert headers["X-Request-ID"] == problem["request_id"]
        assert headers["Content-Type"] == "application/problem+json"
        # The same refusal as the one that took the whole way.
        assert {**problem, "request_id": ""} == {**whole_way[2], "request_id": ""}
    # Until a token can be back: then it is asked again.
    clock.now += 1.06
    assert edge.ask(tenant.key)[0] == 200


def test_who_goes_on_asking_is_refused_at_the_edge_beyond_the_part_of_the_first_refusal(
    edge: Edge, clock: Clock, tenant: World
) -> None:
    assert [edge.ask(tenant.key)[0] for _ in range(2)] == [200, 429]
    for _ in range(20):  # each in another part of the window
        clock.now += 0.0512
        assert edge.ask(tenant.key)[0] == 429
    assert edge.came_through == 2
    clock.now += 0.06
    assert edge.ask(tenant.key)[0] == 200
    assert edge.ask(tenant.key)[0] == 429
    # Who comes back later is not asked after before: one token, taken once.
    clock.now += 2.2
    assert [edge.ask(tenant.key)[0] for _ in range(2)] == [200, 429]
    assert edge.came_through == 5


def test_what_is_refused_at_the_edge_is_the_same_call_of_the_same_caller(
    edge: Edge, tenant: World, other_tenant: World
) -> None:
    assert [edge.ask(tenant.key)[0] for _ in range(3)] == [200, 429, 429]
    seen = edge.came_through
    assert edge.ask(other_tenant.key)[0] == 200
    # Another credential of the tenant, another path, two credentials at once: each is judged.
    assert edge.ask(tenant.admin.key)[0] == 429
    assert edge.ask(tenant.key, path="/api/v1/enforcement/policies", method="GET")[0] == 200
    assert edge.ask(tenant.key, HTTP_X_API_KEY=tenant.key)[0] == 401
    assert edge.ask(tenant.key + "0")[0] == 401
    assert edge.ask()[0] == 401
    assert edge.came_through == seen + 6


def test_the_caller_s_id_is_given_back(edge: Edge, tenant: World) -> None:
    for _ in range(2):
        edge.ask(tenant.key)
    seen = edge.came_through
    _, headers, problem = edge.ask(tenant.key, HTTP_X_REQUEST_ID="run-7")
    assert (headers["X-Request-ID"], problem["request_id"]) == ("run-7", "run-7")
    _, headers, _ = edge.ask(tenant.key, HTTP_X_REQUEST_ID="not sound\r\n")
    assert "sound" not in headers["X-Request-ID"]
    assert edge.came_through == seen


def test_strangers_are_refused_at_the_edge_by_address_and_credential(
    edge: Edge, clock: Clock, settings: Any
) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 2
    bad = "vdx_000000000000_00000000000000000000000000000000abcdef"
    assert [edge.ask(bad)[0] for _ in range(3)] == [401, 401, 429]
    seen = edge.came_through
    with CaptureQueriesContext(connection) as queries:
        assert [edge.ask(bad)[0] for _ in range(5)] == [429] * 5
    assert (edge.came_through, len(queries)) == (seen, 0)
    # Elsewhere the same credential is another caller's.
    assert edge.ask(bad, address="198.51.100.2")[0] == 401
    assert [edge.ask(address="198.51.100.3")[0] for _ in range(3)] == [401, 401, 429]
    seen = edge.came_through
    assert edge.ask(address="198.51.100.3")[0] == 429
    assert edge.came_through == seen
    clock.now += 63
    assert edge.ask(address="198.51.100.3")[0] == 401


def test_another_address_does_not_come_last_for_one_that_floods(
    edge: Edge, clock: Clock, settings: Any
) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 2
    assert [edge.ask(address="198.51.100.4")[0] for _ in range(3)] == [401, 401, 429]
    edge.came_last.clear()
    assert edge.ask(address="198.51.100.5")[0] == 401
    assert edge.came_last == [False]


def test_what_is_remembered_is_bounded(edge: Edge, tenant: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(refusing, "_MOST_KEPT", 3)
    edge.ask(tenant.key)
    for number in range(9):
        assert edge.ask(tenant.key, HTTP_COOKIE=f"a={number}")[0] == 429
    assert len(edge._application._kept) == 3
