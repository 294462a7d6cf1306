"""Shedding load: what comes while too much is in progress is refused at once, gates last of all.

Every request in progress has a thread, and waits in it for the database and for the interpreter.
Without a bound, requests that nobody waits for any more would fill every thread, and a gate would
stand behind them until its own time is over. So a process takes a bounded number; beyond it the
answer is 503 with ``Retry-After`` before anything was read, and costs no statement. Gates are taken
when nothing else is any more: a process whose other requests are slow still decides.

Nor does one tenant take all of the places: whoever authenticates a request says whose it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from django.http import HttpRequest

from valdrix.kernel.http.probes import PROBES
from valdrix.kernel.http.problem_response import problem_response
from valdrix.kernel.http.yielding import COMES_LAST, Busy
from valdrix.kernel.metrics import REQUESTS_SHED
from valdrix.kernel.throttling.owners import Owners

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

GATE: Final = "gate"
OTHER: Final = "other"
GATE_PATHS: Final = "/api/v1/enforcement/gate/"
RETRY_AFTER_SECONDS: Final = 1
PLACE: Final = "valdrix.place"
"""Where a request's environment has its place."""


def hold_place(request: HttpRequest, owner: str) -> bool:
    """Say whose request it is, and tell whether it is not one too many of theirs."""
    place = request.META.get(PLACE)
    return place is None or place.hold_for(owner)


class Place:
    """One request's place: given back once, together with what its owner had of it.

    :param busy: where it counts as in progress, unless it comes last.
    """

    __slots__ = ("_busy", "_number", "_owner", "_owners", "_places")

    def __init__(self, number: int, places: deque[int], owners: Owners, busy: Busy | None) -> None:
        self._busy = busy
        self._number: int | None = number
        self._places = places
        self._owners = owners
        self._owner: str | None = None

    def hold_for(self, owner: str) -> bool:
        """Say whose it is, once, and tell whether it is not one too many of theirs."""
        if self._owner is None and self._owners.take(owner):
            self._owner = owner
        return self._owner is not None

    def give_back(self) -> None:
        """Give the place back; another time does nothing."""
        number, self._number = self._number, None
        if number is None:
            return
        if self._owner is not None:
            self._owners.give_back(self._owner)
        if self._busy is not None:
            self._busy.end()
        self._places.append(number)


class SheddingApplication:
    """A WSGI application that has at most so many requests in progress.

    :param most: requests in progress, gates included.
    :param most_others: requests in progress from which on only gates are taken.
    :param most_of_one: requests in progress of one owner; all of them without it.
    :param busy: where the web server's workers count what is in progress.
    """

    def __init__(
        self,
        application: Application,
        *,
        most: int,
        most_others: int,
        most_of_one: int | None = None,
        busy: Busy | None = None,
    ) -> None:
        self._application = application
        # Taking and giving back are one step each in the interpreter: no lock, and no count that
        # two threads could both find free.
        self._places = deque(range(most))
        self._kept_for_gates = most - most_others
        self._busy = Busy() if busy is None else busy
        self._owners = Owners(most if most_of_one is None else most_of_one)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request, or refuse it."""
        path = environ.get("PATH_INFO", "")
        if path in PROBES:
            return self._application(environ, start_response)
        kind = GATE if path.startswith(GATE_PATHS) else OTHER
        comes_last = COMES_LAST in environ
        place = self._take(kind, counts=not comes_last)
        if place is None:
            return _refuse(kind, start_response)
        environ[PLACE] = place
        try:
            if comes_last:
                self._busy.wait()
            answer = self._application(environ, start_response)
        except BaseException:
            place.give_back()
            raise
        return _Answer(answer, place)

    def _take(self, kind: str, *, counts: bool) -> Place | None:
        if kind == OTHER and len(self._places) <= self._kept_for_gates:
            return None
        try:
            number = self._places.pop()
        except IndexError:
            return None
        if counts:
            self._busy.begin()
        return Place(number, self._places, self._owners, self._busy if counts else None)


class _Answer:
    """A response that gives its place back when it has been sent, or the client has gone."""

    def __init__(self, answer: Iterable[bytes], place: Place) -> None:
        self._answer = answer
        self._place = place

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer)

    def close(self) -> None:
        """Close the response and give the place back, once."""
        try:
            close = getattr(self._answer, "close", None)
            if close is not None:
                close()
        finally:
            self._place.give_back()


def _refuse(kind: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
    REQUESTS_SHED.labels(kind).inc()
    response = problem_response(
        "overloaded",
        "Too much is in progress here; nothing was read or evaluated. Try again.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )
    start_response(f"{response.status_code} {response.reason_phrase}", list(response.items()))
    return [response.content]
