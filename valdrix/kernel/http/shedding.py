"""Shedding load: what comes while too much is in progress is refused at once, gates last of all.

Every request in progress has a thread, and waits in it for the database and for the interpreter.
Without a bound, requests that nobody waits for any more would fill every thread, and a gate would
stand behind them until its own time is over. So a process takes a bounded number; beyond it the
answer is 503 with ``Retry-After`` before anything was read, and costs no statement. Gates are taken
when nothing else is any more: a process whose other requests are slow still decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from valdrix.kernel.http.problem_response import problem_response
from valdrix.kernel.metrics import REQUESTS_SHED

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

GATE: Final = "gate"
OTHER: Final = "other"
GATE_PATHS: Final = "/api/v1/enforcement/gate/"
_ALWAYS: Final = ("/health", "/metrics")
"""What says how the process is."""
RETRY_AFTER_SECONDS: Final = 1


class SheddingApplication:
    """A WSGI application that has at most so many requests in progress.

    :param most: requests in progress, gates included.
    :param most_others: requests in progress from which on only gates are taken.
    """

    def __init__(self, application: Application, *, most: int, most_others: int) -> None:
        self._application = application
        # Taking and giving back are one step each in the interpreter: no lock, and no count that
        # two threads could both find free.
        self._places = deque(range(most))
        self._kept_for_gates = most - most_others

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request, or refuse it."""
        path = environ.get("PATH_INFO", "")
        if path.startswith(_ALWAYS):
            return self._application(environ, start_response)
        kind = GATE if path.startswith(GATE_PATHS) else OTHER
        place = self._take(kind)
        if place is None:
            return _refuse(kind, start_response)
        try:
            answer = self._application(environ, start_response)
        except BaseException:
            self._places.append(place)
            raise
        return _Answer(answer, self._places, place)

    def _take(self, kind: str) -> int | None:
        if kind == OTHER and len(self._places) <= self._kept_for_gates:
            return None
        try:
            return self._places.pop()
        except IndexError:
            return None


class _Answer:
    """A response that gives its place back when it has been sent, or the client has gone."""

    def __init__(self, answer: Iterable[bytes], places: deque[int], place: int) -> None:
        self._answer = answer
        self._places = places
        self._place: int | None = place

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer)

    def close(self) -> None:
        """Close the response and give the place back, once."""
        try:
            close = getattr(self._answer, "close", None)
            if close is not None:
                close()
        finally:
            place, self._place = self._place, None
            if place is not None:
                self._places.append(place)


def _refuse(kind: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
    REQUESTS_SHED.labels(kind).inc()
    response = problem_response(
        "overloaded",
        "Too much is in progress here; nothing was read or evaluated. Try again.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )
    start_response(f"{response.status_code} {response.reason_phrase}", list(response.items()))
    return [response.content]
