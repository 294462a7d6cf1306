"""What a call of the API held is freed with its end, and not left for the garbage collector."""

from __future__ import annotations

import gc
import io
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import psycopg
import pytest
from django.core.wsgi import get_wsgi_application
from django.db import DatabaseError, connection, connections, transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.test import RequestFactory
from rest_framework.request import Request
from rest_framework.views import APIView

from enforcement.gate.joint import Waiting
from tests.conftest import owner_dsn
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from valdrix.embedded.postmaster import free_port
from valdrix.kernel.ids import new_id

GATE = "/api/v1/enforcement/gate"
CHANGE = {
    "project_id": "shop", "environment": "dev", "resource_reference": "x",
    "estimated_monthly_delta_usd": "1.00",
}  # fmt: skip
Ask = Callable[..., int]


@pytest.fixture
def ask(tenant: World) -> Ask:
    """Return what sends one request as a web server does, and keeps nothing of it."""
    application = get_wsgi_application()

    def send(method: str, path: str, body: Any = None, **headers: str) -> int:
        content = b"" if body is None else orjson.dumps(body)
        environ = RequestFactory().generic(
            method, path, content, content_type="application/json", HTTP_HOST="127.0.0.1",
            **{"HTTP_AUTHORIZATION": f"Bearer {tenant.admin.key}", **headers},
        ).environ  # fmt: skip
        environ["wsgi.input"] = io.BytesIO(content)
        said: list[Any] = []
        answer = application(environ, lambda *given: said.extend(given))
        b"".join(answer)
        answer.close()
        return int(said[0][:3])

    return send


@pytest.fixture
def left_by() -> Iterator[Callable[[Callable[[], object]], Counter[str]]]:
    """Return what tells which parts of requests a call leaves to the collector."""

    def find(call: Callable[[], object]) -> Counter[str]:
        call()  # what is made once, and kept
        gc.collect()
        gc.disable()
        try:
            call()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            parts = (HttpRequest, HttpResponseBase, Request, APIView, Waiting)
            return Counter(type(one).__name__ for one in gc.garbage if isinstance(one, parts))
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    yield find
    gc.collect()


def one_gate(ask: Ask) -> int:
    return ask("POST", f"{GATE}/terraform", CHANGE, HTTP_IDEMPOTENCY_KEY=str(new_id()))


def test_a_gate_leaves_nothing(tenant: World, ask: Ask, left_by: Any) -> None:
    Shop(tenant).budget("1000.00")
    assert one_gate(ask) == 200
    assert left_by(lambda: one_gate(ask)) == {}


def test_a_replay_and_a_conflict_leave_nothing(tenant: World, ask: Ask, left_by: Any) -> None:
    Shop(tenant).budget("1000.00")
    key = str(new_id())

    def again(**changes: Any) -> int:
        return ask("POST", f"{GATE}/terraform", {**CHANGE, **changes}, HTTP_IDEMPOTENCY_KEY=key)

    assert [again(), again(), again(project_id="other")] == [200, 200, 409]
    assert left_by(again) == {}
    assert left_by(lambda: again(project_id="other")) == {}


@pytest.mark.parametrize("refused", ["lock", "time"])
def test_what_the_database_refuses_leaves_nothing(
    tenant: World, ask: Ask, left_by: Any, settings: Any, refused: str
) -> None:
    settings.GATE_LOCK_TIMEOUT_MS = 50
    shop = Shop(tenant)
    shop.budget("1000.00")
    assert one_gate(ask) == 200
    with psycopg.connect(owner_dsn()) as holder:
        if refused == "lock":
            locked = "SELECT 1 FROM billing_account WHERE tenant_id = %s FOR UPDATE"
            holder.execute(locked, [tenant.id])
            assert shop.ask("1.00")["reason_codes"] == ["gate_lock_timeout"]
        else:
            # The tables of the decision are held by somebody: its time is over.
            settings.GATE_TIME_BUDGET_MS = 100
            holder.execute("LOCK TABLE enforcement_decision IN ACCESS EXCLUSIVE MODE")
        assert left_by(lambda: one_gate(ask)) == {}
        holder.rollback()


def test_what_the_database_refuses_a_cursor_leaves_nothing(tenant: World, left_by: Any) -> None:
    """As the ORM asks, through Django's cursor and the driver's: the caller's frame has the view."""

    def refused(view: APIView) -> type[BaseException]:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT 1 / 0")
        except DatabaseError as error:
            return type(error.__cause__)
        return type(view)

    assert refused(APIView()) is psycopg.errors.DivisionByZero
    assert left_by(lambda: refused(APIView())) == {}


def test_a_connection_that_is_refused_leaves_nothing(database: None, left_by: Any) -> None:
    """Each time at another port: a server that is known not to answer is not asked again."""

    def refused(view: APIView) -> type[BaseException]:
        other = connections.create_connection("default")
        other.settings_dict = {**other.settings_dict, "HOST": "127.0.0.1", "PORT": free_port(0)}
        try:
            other.ensure_connection()
        except DatabaseError as error:
            return type(error.__cause__)
        return type(view)

    assert refused(APIView()) is psycopg.OperationalError
    assert left_by(lambda: refused(APIView())) == {}


CALLS = [
    ("POST", f"{GATE}/terraform", {"project_id": 7}, 422),
    ("POST", f"{GATE}/batch", {"items": [CHANGE, CHANGE]}, 200),
    ("GET", "/api/v1/enforcement/budgets", None, 200),
    ("GET", "/api/v1/enforcement/policies", None, 200),
    ("GET", "/api/v1/enforcement/approvals/queue", None, 200),
    ("GET", "/api/v1/enforcement/credits", None, 200),
    ("GET", "/api/v1/enforcement/budgets/nope", None, 404),
    ("PUT", "/api/v1/enforcement/budgets", None, 405),
    ("GET", "/api/v1/nope", None, 404),
    ("GET", "/health/live", None, 200),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), CALLS)
def test_no_call_leaves_its_request(
    tenant: World, ask: Ask, left_by: Any, method: str, path: str, body: Any, status: int
) -> None:
    Shop(tenant).budget("1000.00")
    assert ask(method, path, body) == status
    assert left_by(lambda: ask(method, path, body)) == {}


def test_who_is_unknown_leaves_nothing(ask: Ask, left_by: Any) -> None:
    call = lambda: ask("GET", "/api/v1/enforcement/budgets", HTTP_AUTHORIZATION="Bearer no")  # noqa: E731
    assert call() == 401
    assert left_by(call) == {}


def test_the_collector_would_be_seen(left_by: Any) -> None:
    """A request that is tied to itself is found, or the other tests would say nothing."""

    def tie() -> None:
        request = RequestFactory().get("/")
        request.itself = request  # type: ignore[attr-defined] # that is the knot

    assert left_by(tie) == {"WSGIRequest": 1}
