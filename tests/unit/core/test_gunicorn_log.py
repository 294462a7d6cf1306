"""A line of the access log says what gunicorn's own would say, and is made of less."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from valdrix.gunicorn_log import FORMAT, AccessLogger

ENVIRON = {
    "REMOTE_ADDR": "192.0.2.7",
    "REQUEST_METHOD": "POST",
    "RAW_URI": "/api/gate?key=secret",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "PATH_INFO": '/api/"gate"',
    "QUERY_STRING": "key=secret",
    "HTTP_AUTHORIZATION": "Bearer secret",
}
REQUEST = SimpleNamespace(headers=[("AUTHORIZATION", "Bearer secret")])


def line(kind: type[Logger], response: Any, took: timedelta, **settings: str) -> str:
    """Return what one kind of log writes about a request."""
    config = Config()
    config.set("access_log_format", settings.get("access_log_format", FORMAT))
    log = kind(config)
    log.now = lambda: "[27/Nov/2026:22:50:00 +0000]"
    atoms = log.atoms_wrapper_class(log.atoms(response, REQUEST, ENVIRON, took))
    return str(config.access_log_format % atoms)


@pytest.mark.parametrize(
    ("status", "sent", "took"),
    [
        ("200 OK", 512, timedelta(microseconds=1_999)),
        ("503 Service Unavailable", 0, timedelta(seconds=61, microseconds=7)),
        (None, None, timedelta()),
    ],
)
def test_a_line_is_as_gunicorns_own(status: str | None, sent: int | None, took: timedelta) -> None:
    response = SimpleNamespace(status=status, sent=sent, headers=[("X-Request-ID", "1")])

    written = line(AccessLogger, response, took)

    assert written == line(Logger, response, took)
    assert "secret" not in written


@pytest.mark.parametrize("path", ["/x\n127.0.0.1 - FORGED", "/x\r\x1b[2J", "/x\x85\u2028", "/x\\n"])
def test_a_path_cannot_begin_another_line(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRON, "PATH_INFO", path)

    written = line(AccessLogger, SimpleNamespace(status="404 Not Found", sent=1), timedelta())

    assert written.isprintable()
    assert "/x\\" in written
    assert written.count("\\\\") == path.count("\\"), "what was typed is told from what was escaped"


def test_a_format_of_somebodys_own_has_everything() -> None:
    response = SimpleNamespace(status="200 OK", sent=1, headers=[("X-Request-ID", "17")])
    own = "%(h)s %({x-request-id}o)s %(H)s"

    written = line(AccessLogger, response, timedelta(), access_log_format=own)

    assert written == "192.0.2.7 17 HTTP/1.1"


def test_nor_can_a_header_in_a_format_of_somebodys_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRON, "HTTP_USER_AGENT", "curl\x85FORGED \\")
    response = SimpleNamespace(status="200 OK", sent=1, headers=[("X-Request-ID", "a\tb")])

    written = line(
        AccessLogger, response, timedelta(), access_log_format='"%(a)s" %({x-request-id}o)s %(D)s'
    )

    assert written == r'"curl\x85FORGED \\" a\tb 0'
