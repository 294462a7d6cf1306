"""Load over HTTP: a number of users, each asking in turn and waiting for the answer.

Sockets are read by hand: the load generator shares the machine with what it measures, and a
full HTTP client would cost more than the server it asks.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from governance.evidence.load_results import TICK
from valdrix.kernel.strict_json import loads

ANSWER_WITHIN_SECONDS: Final = 30.0
"""From the question to the answer's last byte; who sends it byte by byte has no longer."""
_TICK_SECONDS: Final = float(TICK)
_RECEIVE: Final = 65536


class NoAnswer(Exception):
    """The server closed, or did not answer in time."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request, ready to be sent again and again.

    :ivar name: what figures are kept under.
    :ivar body: None for a GET; ``{n}`` in it becomes a number no other request has.
    """

    name: str
    path: str
    body: str | None = None


@dataclass(slots=True)
class Tally:
    """What users saw.

    :ivar latencies: requests by their time in ticks.
    :ivar statuses: failed requests by the answer's status; 0 where there was no answer.
    """

    latencies: Counter[int] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    elapsed_seconds: float = 0.0

    def add(self, other: Tally) -> None:
        """Take in what another process saw."""
        self.latencies.update(other.latencies)
        self.requests.update(other.requests)
        self.failures.update(other.failures)
        self.statuses.update(other.statuses)
        self.elapsed_seconds = max(self.elapsed_seconds, other.elapsed_seconds)


@dataclass(frozen=True, slots=True)
class Server:
    """Whom to ask, and as whom."""

    host: str
    port: int
    api_key: str

    @classmethod
    def of(cls, base_url: str, api_key: str) -> Server:
        """Return the server behind an ``http://`` address.

        :raises ValueError: for any other address.
        """
        parts = urlsplit(base_url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"{base_url} is no http:// address")
        return cls(parts.hostname, parts.port or 80, api_key)


class Connection:
    """One user's connection, opened again whenever the server closes it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._socket: socket.socket | None = None

    def ask(self, question: Question, number: int) -> tuple[int, bytes]:
        """Send one request and return the status and the body.

        :raises NoAnswer: when there is none, or it is not there in time.
        """
        request = _encode(self._server, question, number)
        deadline = time.monotonic() + ANSWER_WITHIN_SECONDS
        try:
            if self._socket is None:
                self._socket = socket.create_connection(
                    (self._server.host, self._server.port), ANSWER_WITHIN_SECONDS
                )
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _wait_until(self._socket, deadline)
            self._socket.sendall(request)
            status, closes, body = _read_answer(self._socket, deadline)
        except (OSError, ValueError) as error:
            self.close()
            raise NoAnswer(str(error)) from error
        if closes:
            self.close()
        return status, body

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def run_users(
    server: Server, questions: Sequence[Question], *, users: int, seconds: float
) -> Tally:
    """Let users ask for a while, each in a process of its own, and return what they saw.

    :raises NoAnswer: when the users did not come back.
    """
    order = {
        "server": asdict(server),
        "questions": [asdict(question) for question in questions],
        "users": users,
        "seconds": seconds,
    }
    # Users are forked, which is safe only in a process without threads: this one may have some.
    try:
        done = subprocess.run(  # noqa: S603 - this very module
            [sys.executable, "-m", __spec__.name],
            cwd=Path(__file__).parents[2],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=seconds + 2 * ANSWER_WITHIN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NoAnswer("the users did not come back in time") from error
    if done.returncode != 0:
        raise NoAnswer(done.stderr.strip()[-500:])
    said = loads(done.stdout.encode())
    return Tally(
        Counter({int(ticks): count for ticks, count in said["latencies"].items()}),
        Counter(said["requests"]),
        Counter(said["failures"]),
        Counter({int(status): count for status, count in said["statuses"].items()}),
        float(said["elapsed_seconds"]),
    )


def _run_here(order: Mapping[str, Any]) -> Tally:
    """Fork the users, wait for them, and add up what they saw."""
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[Tally] = context.Queue()
    questions = [Question(**question) for question in order["questions"]]
    task = _Task(Server(**order["server"]), questions, float(order["seconds"]))
    processes = [
        context.Process(target=_ask_on, args=(task, user, queue), daemon=True)
        for user in range(order["users"])
    ]
    for process in processes:
        process.start()
    total = Tally()
    for _ in processes:
        total.add(queue.get(timeout=task.seconds + ANSWER_WITHIN_SECONDS + 10))
    for process in processes:
        process.join(10)
    return total


@dataclass(frozen=True, slots=True)
class _Task:
    server: Server
    questions: Sequence[Question]
    seconds: float


def _ask_on(task: _Task, user: int, queue: multiprocessing.Queue[Tally]) -> None:
    server, questions, seconds = task.server, task.questions, task.seconds
    tally, connection = Tally(), Connection(server)
    # Users begin at different questions, so that they do not move in step.
    turn, stamp = user, time.time_ns()
    began, parent = time.monotonic(), os.getppid()
    # Users whose capture was ended leave the server alone.
    while (now := time.monotonic()) - began < seconds and os.getppid() == parent:
        question = questions[turn % len(questions)]
        turn += 1
        try:
            status, _ = connection.ask(question, stamp + user + turn * 1000)
        except NoAnswer:
            status = 0
        failed = status != 200
        ticks = -(-(time.monotonic() - now) // _TICK_SECONDS)
        tally.latencies[int(ticks)] += 1
        tally.requests[question.name] += 1
        tally.failures[question.name] += failed
        if failed:
            tally.statuses[status] += 1
    tally.elapsed_seconds = time.monotonic() - began
    connection.close()
    queue.put(tally)


def _encode(server: Server, question: Question, number: int) -> bytes:
    body = b"" if question.body is None else question.body.replace("{n}", str(number)).encode()
    method = "GET" if question.body is None else "POST"
    head = (
        f"{method} {question.path} HTTP/1.1\r\nHost: {server.host}:{server.port}\r\n"
        f"Authorization: Bearer {server.api_key}\r\nAccept: application/json\r\n"
    )
    if question.body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def _wait_until(sock: socket.socket, deadline: float) -> None:
    """Let the next call on a socket wait until a moment, and no longer."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    sock.settimeout(left)


def _read_answer(sock: socket.socket, deadline: float) -> tuple[int, bool, bytes]:
    """Return the status, whether the server closes now, and the body."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _receive(sock, deadline)
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    if "content-length" not in headers:
        raise ValueError("the answer has no length")
    length = int(headers["content-length"])
    while len(body) < length:
        body += _receive(sock, deadline)
    version, status, *_ = lines[0].split(" ", 2)
    kept = headers.get("connection", "" if version == "HTTP/1.0" else "keep-alive")
    return int(status), kept != "keep-alive", body


def _receive(sock: socket.socket, deadline: float) -> bytes:
    _wait_until(sock, deadline)
    chunk = sock.recv(_RECEIVE)
    if not chunk:
        raise ValueError("the connection was closed in the middle")
    return chunk


def gate_body(project_id: str) -> str:
    """Return a gate's body that asks a change of its own each time it is sent."""
    return json.dumps(
        {
            "project_id": project_id,
            "environment": "dev",
            "action": "terraform.apply",
            "resource_reference": "module.load-{n}",
            "estimated_monthly_delta_usd": "0.01",
        }
    )


def _main() -> None:
    """Run the users that the standard input asks for, and print what they saw."""
    total = _run_here(loads(sys.stdin.buffer.read()))
    said = {
        "latencies": dict(total.latencies),
        "requests": dict(total.requests),
        "failures": dict(total.failures),
        "statuses": dict(total.statuses),
        "elapsed_seconds": total.elapsed_seconds,
    }
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    _main()
