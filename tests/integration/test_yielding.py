"""FI-005: what passes of a flood begins when nothing else is in progress, or after a short while."""

from __future__ import annotations

import mmap
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from valdrix import gunicorn_conf
from valdrix.kernel.http import yielding
from valdrix.kernel.http.refusing import NOTE, RefusedBy, RefusingApplication
from valdrix.kernel.http.shedding import GATE_PATHS, SheddingApplication
from valdrix.kernel.http.yielding import COMES_LAST, Busy
from valdrix.kernel.metrics import REQUESTS_LOST
from valdrix.kernel.throttling.limiter import Limiter
from valdrix.kernel.throttling.shared_file import SharedFile
from valdrix.kernel.throttling.windows import Limit

GATE = f"{GATE_PATHS}terraform"


class Waiting:
    """Somebody who waits for nothing to be in progress, in a thread of their own."""

    def __init__(self, wait: Callable[[], object]) -> None:
        self._wait = wait
        self.is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._wait()
        self.is_over.set()

    def is_held(self) -> bool:
        """Tell whether it still waits after a while in which nobody would hold it otherwise."""
        return not self.is_over.wait(0.1)

    def end(self) -> None:
        """Wait for its end."""
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let those who come last wait for as long as it takes."""
    monkeypatch.setattr(yielding, "MOST_SECONDS", 60.0)


@pytest.mark.usefixtures("patient")
def test_who_comes_last_waits_for_all_that_is_in_progress() -> None:
    busy = Busy()
    busy.wait()
    busy.begin()
    busy.begin()
    waiting = Waiting(busy.wait)
    busy.end()
    assert waiting.is_held()
    busy.end()
    waiting.end()


def test_nobody_waits_longer_than_a_short_while() -> None:
    busy = Busy()
    busy.begin()
    began = time.monotonic()
    busy.wait()
    assert time.monotonic() - began >= yielding.MOST_SECONDS


@pytest.mark.usefixtures("patient")
def test_one_of_a_process_waits_and_the_others_go_on() -> None:
    busy = Busy()
    busy.begin()
    first = Waiting(busy.wait)
    assert first.is_held()
    for other in [Waiting(busy.wait) for _ in range(5)]:
        other.end()
    assert first.is_held()
    busy.end()
    first.end()
    busy.begin()
    again = Waiting(busy.wait)
    assert again.is_held()
    busy.end()
    again.end()


@pytest.mark.usefixtures("patient")
def test_processes_wait_for_one_another() -> None:
    cells = mmap.mmap(-1, 256)
    here, there = Busy(), Busy()
    here.share(cells, 3)
    there.share(cells, 200)
    there.begin()
    waiting = Waiting(here.wait)
    assert waiting.is_held()
    there.end()
    waiting.end()


def test_more_than_a_cell_can_hold_is_still_busy_and_comes_to_an_end() -> None:
    busy, cells = Busy(), bytearray(2)
    busy.share(cells, 1)
    for _ in range(300):
        busy.begin()
    assert cells == bytes([0, 255])
    for left in range(299, -1, -1):
        busy.end()
        assert cells[1] == min(left, 255)


def test_a_worker_counts_in_its_own_cell_and_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    machine = Busy()
    monkeypatch.setattr(gunicorn_conf, "MACHINE", machine)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    cells = gunicorn_conf._BUSY
    worker = SimpleNamespace(age=len(cells) + 7, pid=1)
    gunicorn_conf.post_fork(None, worker)
    machine.begin()
    assert cells[7] == 1
    counts = gunicorn_conf._CONNECTIONS
    counts.put(worker.age, 0)
    counts.put(8, 5)
    assert counts.is_ahead(8)
    # It was killed in the middle of a request.
    said: list[str] = []
    server = SimpleNamespace(log=SimpleNamespace(error=lambda text, *it: said.append(text % it)))
    before = REQUESTS_LOST._value.get()
    gunicorn_conf.child_exit(server, worker)
    assert not any(cells[:])
    assert not counts.is_ahead(8)
    counts.remove(8)
    assert said == ["web process 1 died with 1 requests in progress, which get no answer"]
    assert REQUESTS_LOST._value.get() == before + 1
    # One that had nothing to do ends without a word.
    gunicorn_conf.child_exit(server, worker)
    assert (len(said), REQUESTS_LOST._value.get()) == (1, before + 1)


def test_workers_of_one_server_share_their_cells() -> None:
    code = (
        "import os\n"
        "from types import SimpleNamespace as Worker\n"
        "from valdrix import gunicorn_conf as conf\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    conf.post_fork(None, Worker(age=9))\n"
        "    conf.MACHINE.begin()\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(conf._BUSY[9])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1\n", "")


# --- Whose requests come last ----------------------------------------------------------------------


class Door:
    """The applications before Django as gunicorn has them, with a limit of five a second behind."""

    def __init__(self, limiter: Limiter, busy: Busy) -> None:
        self._limit = (Limit("tenant", 5, 1.0),)
        self._limiter = limiter
        self.shedding = SheddingApplication(self._answer, most=8, most_others=4, busy=busy)
        self._application = RefusingApplication(self.shedding, limiter=lambda: limiter)
        self.came_last: list[bool] = []

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        self.came_last.append(COMES_LAST in environ)
        taken = self._limiter.take(self._limit)
        if not taken.is_allowed:
            environ[NOTE] = RefusedBy("tenant", self._limit, GATE)
        start_response("200 OK" if taken.is_allowed else "429 Too Many Requests", [])
        return [b""]

    def ask(self) -> int:
        """Send one request, and return its status."""
        said: list[Any] = []
        environ = {"PATH_INFO": GATE, "REQUEST_METHOD": "POST"}
        answer = self._application(environ, lambda *given: said.extend(given))
        getattr(answer, "close", lambda: None)()
        return int(said[0][:3])


class Clock:
    """A clock that goes only when it is told to."""

    now = 5000.001

    def __call__(self) -> float:
        return self.now


@pytest.mark.usefixtures("patient")
def test_a_flood_that_waits_has_one_place(tmp_path: Any) -> None:
    """Its calls have no tokens yet: as many as come would fill all places, and keep everybody out."""
    clock, busy = Clock(), Busy()
    counts = Limiter(in_redis=None, in_file=SharedFile(tmp_path, clock=clock), clock=clock)
    door = Door(counts, busy)
    assert [door.ask() for _ in range(6)] == [200] * 5 + [429]
    clock.now += 0.5
    assert door.ask() == 429
    clock.now += 0.56
    busy.begin()
    first = Waiting(door.ask)
    assert first.is_held()
    calls = [Waiting(door.ask) for _ in range(30)]
    for call in calls:
        call.end()
    assert len(door.shedding._places) == 7, "of eight, one waits"
    busy.end()
    first.end()
    assert len(door.shedding._places) == 8
    counts.close()


@pytest.mark.usefixtures("patient")
def test_what_passes_of_a_flood_lets_others_go_first(tmp_path: Any) -> None:
    clock, busy = Clock(), Busy()
    counts = Limiter(in_redis=None, in_file=SharedFile(tmp_path, clock=clock), clock=clock)
    door = Door(counts, busy)
    assert [door.ask() for _ in range(8)] == [200] * 5 + [429] * 3
    assert door.came_last == [False] * 6, "two were refused at the edge"
    clock.now += 0.5
    assert door.ask() == 429
    clock.now += 0.56
    door.came_last.clear()
    busy.begin()
    waiting = Waiting(door.ask)
    assert waiting.is_held()
    assert door.came_last == []
    busy.end()
    waiting.end()
    assert door.came_last == [True]
    # Nor does it count as something that others of its kind would wait for.
    assert door.ask() == 200
    # Who pauses is like anybody.
    clock.now += 2.2
    busy.begin()
    assert door.ask() == 200
    assert door.came_last == [True, True, False]
    busy.end()
    counts.close()
