"""The web processes of a server share what comes, whoever of them is busy, stuck or new."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.gunicorns import running_gunicorn
from tests.integration.test_slow_peers import LIVE, read_answer

PROCESSES = 3
_ESTABLISHED = "01"


@dataclass
class Crowd:
    """Peers of a server, which keep their connections."""

    address: tuple[str, int]
    master: int
    peers: ExitStack = field(default_factory=ExitStack)

    def connect(self, number: int) -> None:
        """Connect so many, each of which is answered."""
        for _ in range(number):
            peer = self.peers.enter_context(socket.create_connection(self.address, timeout=30))
            peer.sendall(LIVE + b"\r\n")
            assert read_answer(peer)[0] == 200

    def count(self) -> dict[int, int]:
        """Return how many connections each process has."""
        port = f":{self.address[1]:04X}"
        rows = (row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:])
        ours = {
            f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == _ESTABLISHED
        }
        children = Path(f"/proc/{self.master}/task/{self.master}/children").read_text().split()
        return {int(pid): len(ours & _open_files(pid)) for pid in children}

    def wait_for_all(self) -> None:
        """Wait until every process takes connections, and leave none behind."""
        until = time.monotonic() + 60
        found = {0: 0}
        while len(found) < PROCESSES or not all(found.values()):
            assert time.monotonic() < until, found
            self.connect(1)
            found = self.count()
        self.peers.close()
        while any(self.count().values()):
            assert time.monotonic() < until, self.count()
            time.sleep(0.05)


def _open_files(pid: str) -> set[str]:
    """Return what a process has open; what ends or is closed meanwhile is not among it."""
    found = set()
    with suppress(FileNotFoundError):
        for one in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.add(str(one.readlink()))
    return found


@pytest.fixture
def crowd(django_db_setup: None, tmp_path: Path) -> Iterator[Crowd]:
    """Run gunicorn with some processes."""
    log = tmp_path / "server.log"
    options = (f"--workers={PROCESSES}", "--threads=9", "--graceful-timeout=1")
    with running_gunicorn(log, *options) as (address, process):
        made = Crowd(address, process.pid)
        with made.peers:
            made.wait_for_all()
            yield made


def test_processes_share_what_comes_and_leave_nothing_to_one_that_is_stuck(crowd: Crowd) -> None:
    crowd.connect(30)
    counts = crowd.count()
    assert sum(counts.values()) == 30
    assert min(counts.values()) >= 5, counts

    # One that hangs has fewest, and nobody waits for it.
    stuck = min(counts, key=lambda pid: counts[pid])
    os.kill(stuck, signal.SIGSTOP)
    crowd.connect(9)
    assert crowd.count()[stuck] == counts[stuck]

    # The one that comes in its place has none, and takes what comes.
    os.kill(stuck, signal.SIGKILL)
    until = time.monotonic() + 60
    while stuck in crowd.count() or not any(
        count for pid, count in crowd.count().items() if pid not in counts
    ):
        assert time.monotonic() < until, crowd.count()
        crowd.connect(1)
    (new,) = set(crowd.count()) - set(counts)
    crowd.connect(10)
    assert crowd.count()[new] >= 5, crowd.count()
