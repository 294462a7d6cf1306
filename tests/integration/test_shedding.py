"""Load shedding: beyond a bound the answer is 503 at once, gates last, and nothing leaks."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from http import HTTPStatus
from io import BytesIO
from typing import Any

import pytest
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from enforcement.models import Decision
from tests.factories.headroom import Shop
from tests.factories.tenants import World
from valdrix.kernel.db import reading
from valdrix.kernel.http.shedding import GATE_PATHS, PLACE, SheddingApplication
from valdrix.kernel.metrics import REQUESTS_SHED

GATE = f"{GATE_PATHS}terraform"
OTHER = "/api/v1/enforcement/budgets"


class Held:
    """An application whose requests stay in progress until they are let go."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        self.seen.append(environ["PATH_INFO"])
        if environ["PATH_INFO"].endswith("fails"):
            raise RuntimeError("broken")
        start_response("200 OK", [])
        return [b"done"]


class Caller:
    """Sends requests and keeps their answers open."""

    def __init__(self, *, most: int, most_others: int) -> None:
        self.inner = Held()
        self.application = SheddingApplication(self.inner, most=most, most_others=most_others)
        self.open: list[Any] = []

    def ask(self, path: str) -> tuple[int, dict[str, str], Any]:
        """Begin one request; its answer stays open when it was taken."""
        said: list[Any] = []
        answer = self.application({"PATH_INFO": path}, lambda *given: said.extend(given))
        status = int(said[0].split()[0])
        if status == HTTPStatus.OK:
            self.open.append(answer)
        return status, dict(said[1]), b"".join(answer)

    def end(self, count: int) -> None:
        """Let the oldest answers end."""
        for _ in range(count):
            self.open.pop(0).close()


def shed(kind: str) -> float:
    value: float = REQUESTS_SHED.labels(kind)._value.get()
    return value


def test_others_are_refused_first_and_gates_last_and_places_come_back() -> None:
    caller = Caller(most=3, most_others=2)
    before = shed("gate"), shed("other")
    assert [caller.ask(OTHER)[0] for _ in range(3)] == [200, 200, 503]
    assert [caller.ask(GATE)[0] for _ in range(2)] == [200, 503]
    assert (shed("gate") - before[0], shed("other") - before[1]) == (1, 1)
    caller.end(1)
    assert caller.ask(OTHER)[0] == 503, "the place that came back is a gate's"
    assert caller.ask(GATE)[0] == 200
    caller.end(3)
    assert [caller.ask(OTHER)[0] for _ in range(3)] == [200, 200, 503]


def test_gates_that_fill_everything_keep_others_out() -> None:
    caller = Caller(most=2, most_others=1)
    assert [caller.ask(GATE)[0] for _ in range(3)] == [200, 200, 503]
    assert caller.ask(OTHER)[0] == 503
    assert caller.inner.seen == [GATE, GATE], "what was refused never came to the application"


def test_the_refusal_is_a_problem_that_says_when_to_come_back() -> None:
    caller = Caller(most=2, most_others=1)
    caller.ask(OTHER)
    status, headers, body = caller.ask(OTHER)
    document = json.loads(body)
    assert (status, document["code"], document["status"]) == (503, "overloaded", 503)
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Retry-After"] == "1"
    assert headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/health", "/metrics"])
def test_how_the_process_is_can_always_be_asked(path: str) -> None:
    caller = Caller(most=2, most_others=1)
    for _ in range(4):
        caller.ask(GATE)
    assert caller.ask(path)[0] == 200
    assert caller.ask(f"{path}X")[0] == 503


def test_a_request_that_breaks_gives_its_place_back() -> None:
    caller = Caller(most=2, most_others=1)
    for _ in range(5):
        with pytest.raises(RuntimeError):
            caller.ask("/fails")
    assert caller.ask(OTHER)[0] == 200


def test_a_place_comes_back_once_however_often_an_answer_is_closed() -> None:
    caller = Caller(most=2, most_others=1)
    caller.ask(OTHER)
    answer = caller.open.pop()
    for _ in range(3):
        answer.close()
    assert [caller.ask(OTHER)[0] for _ in range(2)] == [200, 503]


def test_an_answer_that_fails_to_close_gives_its_place_back() -> None:
    class Broken:
        def __iter__(self) -> Iterator[bytes]:
            return iter(())

        def close(self) -> None:
            raise OSError("the client has gone")

    application = SheddingApplication(lambda *_: Broken(), most=2, most_others=1)
    for _ in range(4):
        answer = application({"PATH_INFO": OTHER}, lambda *_: None)
        with pytest.raises(OSError, match="gone"):
            answer.close()  # type: ignore[attr-defined]


def test_many_at_once_never_have_more_places_than_there_are() -> None:
    caller = Caller(most=8, most_others=7)
    taken, start = [], threading.Barrier(32)

    def ask() -> None:
        start.wait()
        taken.append(caller.ask(GATE)[0])

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [200] * 8 + [503] * 24


def test_others_are_refused_while_gates_are_still_decided(tenant: World) -> None:
    Shop(tenant).budget("1000.00")
    application = SheddingApplication(get_wsgi_application(), most=2, most_others=1)

    def call(method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        said: list[Any] = []
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "127.0.0.1",
            "HTTP_AUTHORIZATION": f"Bearer {tenant.admin.key}",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": BytesIO(body),
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
        }
        answer = application(environ, lambda *given: said.extend(given))
        content = b"".join(answer)
        if path != OTHER:
            answer.close()  # type: ignore[attr-defined]
        return int(said[0].split()[0]), json.loads(content)

    assert call("GET", OTHER)[0] == 200, "it is still being sent"
    with CaptureQueriesContext(connection) as statements:
        status, document = call("GET", OTHER)
    assert (status, document["code"]) == (503, "overloaded")
    assert len(statements) == 0, "a refusal costs no statement, not even the credential's"
    change = {
        "project_id": "shop",
        "environment": "dev",
        "resource_reference": "module.web",
        "estimated_monthly_delta_usd": "10.00",
    }
    status, document = call("POST", GATE, json.dumps(change).encode())
    assert (status, document["decision"]) == (200, "ALLOW")
    with reading(tenant.id):
        assert Decision.objects.filter(tenant_id=tenant.id).count() == 1


def test_one_owner_never_has_all_places() -> None:
    class Whose:
        """An application that says whose each request is, as authentication does."""

        def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            place = environ[PLACE]
            first = place.hold_for(environ["whose"])
            assert place.hold_for(environ["whose"]) == first, "a request counts once"
            start_response("200 OK" if first else "429 Too Many Requests", [])
            return [b""]

    application = SheddingApplication(Whose(), most=4, most_others=3, most_of_one=2)
    answers = []

    def ask(whose: str) -> int:
        said: list[Any] = []
        answer = application({"PATH_INFO": GATE, "whose": whose}, lambda *a: said.extend(a))
        answers.append(answer)
        return int(said[0][:3])

    assert [ask("a") for _ in range(3)] == [200, 200, 429]
    answers[2].close()  # type: ignore[attr-defined]
    assert [ask("b") for _ in range(2)] == [200, 200]
    for answer in answers:
        answer.close()  # type: ignore[attr-defined]
        answer.close()  # type: ignore[attr-defined]
    assert [ask("b") for _ in range(3)] == [200, 200, 429]
    assert not application._owners._held["a"]


def test_a_tenant_with_too_much_in_progress_is_refused_and_another_is_not(
    tenant: World, other_tenant: World
) -> None:
    """FI-005: whoever holds the places, by requests that take long, keeps nobody else out."""
    application = SheddingApplication(get_wsgi_application(), most=4, most_others=3, most_of_one=1)
    answers: list[Any] = []

    def ask(world: World) -> tuple[int, dict[str, str], Any]:
        said: list[Any] = []
        environ = RequestFactory().get(
            "/api/v1/enforcement/policies/schema",
            HTTP_HOST="127.0.0.1",
            HTTP_AUTHORIZATION=f"Bearer {world.key}",
        )
        answers.append(application(environ.environ, lambda *given: said.extend(given)))
        return int(said[0][:3]), dict(said[1]), json.loads(b"".join(answers[-1]))

    assert ask(tenant)[0] == 200, "it is still being sent"
    # By a key that this process knows by now, and by one that it has to ask for.
    for world in (tenant, replace(tenant, member=tenant.admin)):
        status, headers, document = ask(world)
        assert (status, document["code"], headers["Retry-After"]) == (429, "throttled", "1")
        answers.pop().close()
    assert ask(other_tenant)[0] == 200
    answers[0].close()
    assert ask(tenant)[0] == 200
