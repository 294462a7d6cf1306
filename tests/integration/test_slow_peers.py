"""Peers that are slow, stop in the middle or never hang up keep no thread of the web server."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from http.client import HTTPConnection

import pytest

from tests.factories.headroom import Shop
from tests.factories.tenants import World
from tests.integration.gunicorns import running_gunicorn
from tests.integration.impatient import SECONDS, THREADS
from valdrix.gunicorn_peers import WHOLE_BYTES

MANY = 4 * THREADS
SOON_SECONDS = 1.0
"""An answer that waits for none of the others; less than any of their time-outs."""
GATE = "/api/v1/enforcement/gate/terraform"
LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
Address = tuple[str, int]


@pytest.fixture(scope="module")
def address(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Run gunicorn with one process and few threads."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    config = "python:tests.integration.impatient"
    with running_gunicorn(log, "--graceful-timeout=10", config=config) as (found, _):
        with socket.create_connection(found, timeout=30) as peer:
            peer.sendall(LIVE + b"\r\n")
            assert read_answer(peer)[0] == 200, log.read_text()
        yield found
        began = time.monotonic()
    assert time.monotonic() - began < 5, "a stop waits for nobody who sends nothing"


@pytest.fixture
def connect(address: Address) -> Iterator[Callable[..., socket.socket]]:
    """Connect peers that send something, and stay until the test ends."""
    with ExitStack() as peers:

        def one(sent: bytes = b"") -> socket.socket:
            peer = peers.enter_context(socket.create_connection(address, timeout=30))
            peer.sendall(sent)
            return peer

        yield one


def read_answer(peer: socket.socket) -> tuple[int, bytes]:
    """Read one answer, by its length and no further."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = peer.recv(1)
        assert piece, answer
        answer += piece
    lines = answer.decode().lower().split("\r\n")
    status = int(lines[0].split()[1])
    length = next((int(one[15:]) for one in lines if one.startswith("content-length:")), 0)
    body = b""
    while len(body) < length:
        body += peer.recv(length - len(body))
    return status, body


def answers_soon(address: Address) -> None:
    """Ask what needs no credential, several times, and be answered in time."""
    for _ in range(5):
        began = time.monotonic()
        with socket.create_connection(address, timeout=30) as peer:
            peer.sendall(LIVE + b"\r\n")
            assert read_answer(peer)[0] == 200
        assert time.monotonic() - began < SOON_SECONDS


def ask_gate(key: str, body: bytes, **more: str) -> bytes:
    """Return the head of a gate's call."""
    named = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **more}
    lines = [f"POST {GATE} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in named.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.fixture
def question(tenant: World) -> bytes:
    """Return the body of a gate's call that a tenant with a budget is allowed."""
    Shop(tenant).budget("1000.00")
    return json.dumps(
        {
            "project_id": "shop",
            "environment": "dev",
            "resource_reference": "module.web",
            "estimated_monthly_delta_usd": "1.00",
        }
    ).encode()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /",
        LIVE,
        b"POST " + GATE.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        LIVE + b"\r\n" + LIVE,
        b"\r\n",
        b"\r\n\r\n",
        LIVE + b"A: b\r\n" * 12_000,
    ],
    ids=[
        *("nothing", "part-of-a-line", "part-of-a-head", "part-of-a-body", "one-and-a-part"),
        *("an-end", "two-ends", "a-head-without-end"),
    ],
)
def test_peers_who_do_not_send_the_rest_hold_nobody_up(
    address: Address, connect: Callable[..., socket.socket], sent: bytes
) -> None:
    for _ in range(MANY):
        connect(sent)

    answers_soon(address)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_peers_who_never_hang_up_hold_nobody_up(
    address: Address, connect: Callable[..., socket.socket], version: bytes
) -> None:
    asked = (
        b"GET /health/live HTTP/" + version + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    peers = [connect(asked) for _ in range(MANY)]

    answers_soon(address)
    assert [read_answer(peer)[0] for peer in peers] == [200] * MANY
    assert peers[0].recv(1) == b"", "the answer ends with the server's end"


def test_who_does_not_send_the_rest_is_told_and_who_sends_nothing_is_parted_from(
    address: Address,
    connect: Callable[..., socket.socket],
) -> None:
    before = unread(address)
    half, silent = connect(LIVE), connect()
    began = time.monotonic()

    status, body = read_answer(half)

    assert (status, json.loads(body)["code"]) == (408, "request_timeout")
    assert half.recv(1) == b""
    assert silent.recv(1) == b""
    assert SECONDS * 0.8 < time.monotonic() - began < SECONDS + 3
    assert unread(address) == before + 1


def unread(address: Address) -> float:
    """Return how many requests were given up for their slowness."""
    client = HTTPConnection(*address, timeout=30)
    client.request("GET", "/metrics")
    said = client.getresponse().read().decode()
    client.close()
    lines = (one for one in said.splitlines() if 'unread_total{code="request_timeout"}' in one)
    return sum(float(one.split()[-1]) for one in lines)


def test_peers_who_take_nothing_of_their_answers_hold_the_threads_for_a_time_only(
    address: Address, connect: Callable[..., socket.socket]
) -> None:
    for _ in range(THREADS):
        peer = connect()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked = b"GET /api/schema?format=json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 60
        threading.Thread(target=send_what_is_taken, args=(peer, asked), daemon=True).start()
    time.sleep(1.0)

    with socket.create_connection(address, timeout=30) as other:
        other.sendall(LIVE + b"\r\n")
        assert read_answer(other)[0] == 200


def send_what_is_taken(peer: socket.socket, sent: bytes) -> None:
    try:
        peer.sendall(sent)
    except OSError:
        return


def test_a_request_in_pieces_is_one(
    connect: Callable[..., socket.socket], tenant: World, question: bytes
) -> None:
    peer = connect()
    whole = ask_gate(tenant.owner.key, question) + question
    for at in range(0, len(whole), 40):
        peer.sendall(whole[at : at + 40])
        time.sleep(0.005)

    status, body = read_answer(peer)

    assert (status, json.loads(body)["decision"]) == (200, "ALLOW")


def test_a_connection_that_nobody_uses_for_a_while_is_there_for_the_next_request(
    connect: Callable[..., socket.socket],
) -> None:
    peer = connect(LIVE + b"\r\n")
    assert read_answer(peer)[0] == 200
    time.sleep(SECONDS + 1.5)

    peer.sendall(LIVE + b"\r\n")

    assert read_answer(peer)[0] == 200


def test_requests_that_come_at_once_are_answered_in_turn(
    connect: Callable[..., socket.socket],
) -> None:
    peer = connect((LIVE + b"\r\n") * 3 + LIVE)
    assert [read_answer(peer)[0] for _ in range(3)] == [200] * 3

    peer.sendall(b"\r\n")

    assert read_answer(peer)[0] == 200


def test_a_body_that_waits_for_a_word_gets_it(
    connect: Callable[..., socket.socket], tenant: World, question: bytes
) -> None:
    peer = connect(ask_gate(tenant.owner.key, question, Expect="100-continue"))
    assert read_answer(peer)[0] == 100

    peer.sendall(question)

    assert read_answer(peer)[0] == 200


def test_a_long_body_is_read_while_it_comes(
    connect: Callable[..., socket.socket], tenant: World
) -> None:
    body = b" " * (5 * WHOLE_BYTES)
    peer = connect(ask_gate(tenant.owner.key, body))
    for at in range(0, len(body), WHOLE_BYTES):
        peer.sendall(body[at : at + WHOLE_BYTES])
        time.sleep(0.1)

    assert read_answer(peer)[0] == 400


def test_who_stops_in_a_long_body_is_told(
    connect: Callable[..., socket.socket], tenant: World
) -> None:
    body = b" " * (5 * WHOLE_BYTES)
    peer = connect(ask_gate(tenant.owner.key, body) + body[: 2 * WHOLE_BYTES])

    status, said = read_answer(peer)

    assert (status, json.loads(said)["code"]) == (408, "request_timeout")
    assert peer.recv(1) == b""


def test_a_long_body_that_nobody_wants_keeps_no_thread_and_the_answer_arrives(
    connect: Callable[..., socket.socket], address: Address
) -> None:
    body = b" " * (5 * WHOLE_BYTES)
    peers = [connect(ask_gate("vdx_nobody", body) + body[: 2 * WHOLE_BYTES]) for _ in range(MANY)]

    answers_soon(address)
    for peer in peers:
        peer.sendall(body[2 * WHOLE_BYTES :])
        # With so few threads some are told that there are too many at once.
        assert read_answer(peer)[0] in {401, 429, 503}


def test_a_short_body_that_nobody_wants_leaves_the_connection_to_the_next_request(
    address: Address, question: bytes
) -> None:
    client = HTTPConnection(*address, timeout=30)
    for _ in range(2):
        client.request("POST", GATE, question, {"Content-Type": "application/json"})
        answer = client.getresponse()
        assert (answer.status, answer.will_close) == (401, False)
        answer.read()
    client.close()


@pytest.mark.parametrize("kind", ["trailer", "chunk", "expected"])
def test_peers_who_trickle_what_nobody_reads_hold_nobody_up(
    address: Address, connect: Callable[..., socket.socket], kind: str
) -> None:
    head = f"POST {GATE} HTTP/1.1\r\nHost: localhost\r\n".encode()
    begun = {
        "trailer": head + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        "chunk": head + b"Transfer-Encoding: chunked\r\n\r\n5;a=",
        "expected": head + b"Content-Length: 60000\r\nExpect: 100-continue\r\n\r\n",
    }[kind]
    peers = [connect(begun) for _ in range(MANY)]
    ends_at = time.monotonic() + 1.5
    while time.monotonic() < ends_at:
        for peer in peers:
            with suppress(OSError):
                peer.send(b"x")
        answers_soon(address)


@pytest.mark.parametrize("length", [WHOLE_BYTES - 1, WHOLE_BYTES, 8 * WHOLE_BYTES])
def test_what_an_answer_says_of_the_connection_is_so(address: Address, length: int) -> None:
    client = HTTPConnection(*address, timeout=30)
    for _ in range(2):
        client.request("POST", GATE, b" " * length, {"Content-Type": "application/json"})
        answer = client.getresponse()
        answer.read()
        assert (answer.status, answer.will_close) == (401, length > WHOLE_BYTES)
    client.close()


def test_a_chunked_body_is_answered_once(connect: Callable[..., socket.socket]) -> None:
    head = f"POST {GATE} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    peer = connect(head.encode() + b"zz\r\n")

    assert read_answer(peer)[0] == 411
    assert peer.recv(1) == b""


@pytest.mark.parametrize("length", [1_000, 3 * WHOLE_BYTES])
def test_a_body_that_breaks_off_is_no_shorter_body(
    connect: Callable[..., socket.socket], tenant: World, question: bytes, length: int
) -> None:
    whole = question + b" " * (length - len(question))
    peer = connect(ask_gate(tenant.owner.key, whole) + whole[:-1])
    peer.shutdown(socket.SHUT_WR)

    status, said = read_answer(peer)

    code = "malformed_request" if length < WHOLE_BYTES else "malformed_body"
    assert (status, json.loads(said)["code"]) == (400, code)


def test_a_cost_file_that_breaks_off_is_not_taken(
    connect: Callable[..., socket.socket], tenant: World
) -> None:
    day = datetime.now(UTC).date().isoformat()
    rows = "".join(f"shop,dev,{day},1.00,service{number}\n" for number in range(20_000))
    whole = f"project_id,environment,date,amount_usd,service\n{rows}".encode()
    lines = ["POST /api/v1/enforcement/costs HTTP/1.1", "Host: localhost", "Content-Type: text/csv"]
    lines += [f"Authorization: Bearer {tenant.admin.key}", f"Content-Length: {len(whole)}", "", ""]
    peer = connect("\r\n".join(lines).encode() + whole[: -len("shop,dev")])
    peer.shutdown(socket.SHUT_WR)

    status, said = read_answer(peer)

    assert (status, json.loads(said)["code"]) == (400, "malformed_body")
