"""Outbound calls, over real TLS to a server on this machine."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standin import HOST, LOOPBACK, Reply, StandIn, stand_in
from valdrix.kernel import outbound
from valdrix.kernel.addresses import ANY_HOST, read_host_list
from valdrix.kernel.outbound import (
    BREAKER_FAILURES,
    Call,
    Client,
    OutboundFailed,
    OutboundPaused,
    OutboundRefused,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("standin")


@pytest.fixture
def server(directory: Path) -> Iterator[StandIn]:
    with stand_in(directory, lambda asked: Reply(body=b'{"ok": true}')) as running:
        yield running


def client(server: StandIn, **options: object) -> Client:
    """Build a client that trusts the stand-in and does not wait between tries."""
    terms = {"allowed_networks": LOOPBACK, "ca_file": server.ca_file, "pause": lambda _: None}
    return Client(**(terms | options))


def call(server: StandIn, path: str = "/", **options: object) -> Call:
    terms = {"method": "GET", "url": server.url + path, "hosts": read_host_list([server.host])}
    return Call(**(terms | options))


def test_a_call_arrives_as_it_was_made(server: StandIn) -> None:
    answer = client(server).send(
        call(server, "/a?b=c", method="PATCH", body=b"xyz", headers={"Authorization": "Bearer t"})
    )
    assert (answer.status, answer.body) == (200, b'{"ok": true}')
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("PATCH", "/a?b=c", b"xyz")
    assert asked.headers["authorization"] == "Bearer t"
    assert asked.headers["host"] == server.host


def test_an_address_that_is_not_public_is_not_connected_to(server: StandIn) -> None:
    with pytest.raises(OutboundRefused, match="may not be called"):
        client(server, allowed_networks=()).send(call(server))
    assert server.connections == 0


@pytest.mark.parametrize("answers", [["93.184.216.34", "127.0.0.1"], ["127.0.0.1", "10.0.0.1"]])
def test_one_address_that_is_not_allowed_refuses_the_name(
    server: StandIn, answers: list[str]
) -> None:
    asking = client(server, allowed_networks=(), resolve=lambda host, port: answers)
    with pytest.raises(OutboundRefused):
        asking.send(call(server))
    assert server.connections == 0


def test_a_name_that_changes_its_mind_gains_nothing(server: StandIn) -> None:
    """A name is resolved once a try; the connection goes to what was checked."""
    seen: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        seen.append(host)
        return ["127.0.0.1"] if len(seen) == 1 else ["169.254.169.254"]

    asking = client(server, resolve=resolve)
    assert asking.send(call(server)).status == 200
    assert seen == [HOST]
    with pytest.raises(OutboundRefused):
        asking.send(call(server))
    assert server.connections == 1


def test_a_host_that_is_not_on_the_list_is_not_resolved(server: StandIn) -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise AssertionError("resolved")

    asking = client(server, resolve=resolve)
    for url in ("https://evil.test/", f"http://{server.host}/", "https://127.0.0.1/"):
        with pytest.raises(OutboundRefused):
            asking.send(call(server, url=url))


def test_a_certificate_of_another_name_or_issuer_is_refused(server: StandIn) -> None:
    other = f"https://other.test:{server.port}/"
    asking = client(server, resolve=lambda host, port: ["127.0.0.1"])
    with pytest.raises(OutboundFailed):
        asking.send(call(server, url=other, hosts=ANY_HOST))
    with pytest.raises(OutboundFailed):
        client(server, ca_file=None).send(call(server))
    assert server.asked == []


def test_redirects_are_followed_only_when_asked_and_only_to_the_list(server: StandIn) -> None:
    server.answer = lambda asked: Reply(302, headers={"Location": "https://169.254.169.254/x"})
    asking = client(server)
    assert asking.send(call(server)).status == 302
    with pytest.raises(OutboundRefused):
        asking.send(call(server, max_redirects=3))
    assert len(server.asked) == 2


def test_a_redirect_on_the_list_is_followed_and_credentials_stay(
    directory: Path, server: StandIn
) -> None:
    with stand_in(directory, lambda asked: Reply(body=b"plan")) as storage:
        server.answer = lambda asked: Reply(307, headers={"Location": storage.url + "/p?sig=1"})
        answer = client(server).send(
            call(
                server,
                hosts=read_host_list([server.host, storage.host]),
                headers={"Authorization": "Bearer t"},
                max_redirects=1,
            )
        )
    assert answer.body == b"plan"
    assert storage.asked[0].path == "/p?sig=1"
    assert "authorization" not in storage.asked[0].headers
    assert server.asked[0].headers["authorization"] == "Bearer t"


@pytest.mark.parametrize("location", ["//[", "https://[::1", "https://a]b/"])
def test_a_redirect_to_what_is_no_address_is_refused(server: StandIn, location: str) -> None:
    server.answer = lambda asked: Reply(302, headers={"Location": location})
    with pytest.raises(OutboundRefused):
        client(server).send(call(server, max_redirects=3))


@pytest.mark.parametrize(
    "reply",
    [
        Reply(7),
        Reply(headers={f"x-{number}": "1" for number in range(200)}),
        Reply(headers={"x-long": "a" * 70_000}),
        Reply(headers={"Content-Length": "-5"}),
        Reply(headers={"Transfer-Encoding": "chunked"}, body=b"no length of a chunk"),
    ],
    ids=["status", "many-headers", "long-header", "negative-length", "chunks"],
)
def test_an_answer_that_is_not_http_is_no_answer(server: StandIn, reply: Reply) -> None:
    server.answer = lambda asked: reply
    try:
        answer = client(server).send(call(server))
    except OutboundFailed:
        assert len(server.asked) == 3
    else:
        assert answer.status == 200  # What it holds is read as far as it can be.


@pytest.mark.parametrize("value", ["\u0102", "caf\u00e9", "a\r\nhost: other", "a\x00"])
def test_a_header_that_cannot_be_sent_is_refused(server: StandIn, value: str) -> None:
    with pytest.raises(OutboundRefused, match="header"):
        client(server).send(call(server, headers={"Authorization": f"Bearer {value}"}))
    assert server.connections == 0


def test_endless_redirects_end(server: StandIn) -> None:
    server.answer = lambda asked: Reply(302, headers={"Location": "/again"})
    assert client(server).send(call(server, max_redirects=3)).status == 302
    assert len(server.asked) == 4


def test_an_answer_is_bounded(server: StandIn) -> None:
    server.answer = lambda asked: Reply(body=b"x" * 2000)
    with pytest.raises(OutboundRefused, match="larger"):
        client(server).send(call(server, max_bytes=1999))
    assert client(server).send(call(server, max_bytes=2000)).body == b"x" * 2000


def test_three_tries_with_growing_pauses(server: StandIn) -> None:
    pauses: list[float] = []
    server.answer = lambda asked: Reply(503)
    answer = client(server, pause=pauses.append).send(call(server))
    assert answer.status == 503
    assert len(server.asked) == 3
    assert 0.5 <= pauses[0] < 1.0 <= pauses[1] < 2.0


def test_a_later_try_may_succeed_and_a_refusal_is_not_tried_again(server: StandIn) -> None:
    statuses = iter([500, 429, 200, 401])
    server.answer = lambda asked: Reply(next(statuses))
    asking = client(server)
    assert asking.send(call(server)).status == 200
    assert asking.send(call(server)).status == 401
    assert len(server.asked) == 4


def test_the_breaker_opens_after_five_failures_and_lets_one_call_through_later(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = lambda asked: Reply(500)
    asking = client(server)
    for _ in range(BREAKER_FAILURES):
        asking.send(call(server, tries=1))
    with pytest.raises(OutboundPaused):
        asking.send(call(server, tries=1))
    assert len(server.asked) == BREAKER_FAILURES

    later = time.monotonic() + outbound.BREAKER_PAUSE_SECONDS + 1
    monkeypatch.setattr(outbound.time, "monotonic", lambda: later)
    asking.send(call(server, tries=1))
    with pytest.raises(OutboundPaused):
        asking.send(call(server, tries=1))
    server.answer = lambda asked: Reply(200)
    later += outbound.BREAKER_PAUSE_SECONDS + 1
    assert asking.send(call(server)).status == 200
    assert asking.send(call(server)).status == 200


def test_one_host_that_fails_leaves_others_alone(directory: Path, server: StandIn) -> None:
    asking = client(server)
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    dead = f"{HOST}:{closed.getsockname()[1]}"
    for _ in range(2):
        with pytest.raises((OutboundFailed, OutboundPaused)):
            asking.send(call(server, url=f"https://{dead}/", hosts=read_host_list([dead])))
    closed.close()
    assert asking.send(call(server)).status == 200


def test_a_drop_at_a_time_does_not_hold_the_caller(server: StandIn) -> None:
    """Each part comes well within a socket's own time-out; the whole would take ten seconds."""
    server.answer = lambda asked: Reply(parts=(b"x",) * 50, pause_seconds=0.2)
    asking = client(server, timeout_seconds=0.6)
    with pytest.raises(OutboundFailed, match="timed out"):
        asking.send(call(server, tries=1))
    assert len(server.asked) == 1


def test_a_silent_handshake_does_not_hold_the_caller(server: StandIn) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []
    thread = threading.Thread(target=lambda: held.append(listener.accept()[0]), daemon=True)
    thread.start()
    silent = f"{HOST}:{listener.getsockname()[1]}"
    with pytest.raises(OutboundFailed):
        client(server, timeout_seconds=0.4).send(
            call(server, url=f"https://{silent}/", hosts=read_host_list([silent]), tries=1)
        )
    thread.join()
    for one in (*held, listener):
        one.close()


def test_nothing_secret_is_logged_or_shown(
    server: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "s3cr3t-token"
    made = call(
        server, f"/{secret}?sig={secret}", headers={"Authorization": secret}, body=secret.encode()
    )
    server.answer = lambda asked: Reply(500, body=secret.encode())
    with caplog.at_level(logging.DEBUG):
        client(server).send(made)
        with pytest.raises(OutboundRefused) as refused:
            client(server, allowed_networks=()).send(made)
    assert len(caplog.records) >= 3
    assert secret not in caplog.text
    assert secret not in str(refused.value) + repr(made)
