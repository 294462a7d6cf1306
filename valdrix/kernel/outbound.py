"""Outbound calls: the one way out of Valdrix, over HTTPS only (SPEC 16).

Whoever fills in a URL chooses where this server connects. So a host must be on the caller's list,
what it resolves to must be public or in a network that the operator allows, and the connection
goes to the very address that was checked: a name that resolves differently a moment later gains
nothing. Each try ends after 30 seconds in all, answers are bounded, and a host that keeps failing
is left alone for a while. Neither paths, headers nor bodies are logged: they carry secrets.
"""

from __future__ import annotations

import ipaddress
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import HTTPException
from typing import Final
from urllib.parse import urljoin

from django.conf import settings
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from valdrix.kernel.addresses import (
    AddressError,
    HostList,
    Network,
    Target,
    may_connect,
    read_url,
)
from valdrix.kernel.metrics import OUTBOUND_CALLS

log = logging.getLogger("valdrix.outbound")

TIMEOUT_SECONDS: Final = 30.0
CONNECT_TIMEOUT_SECONDS: Final = 10.0
TRIES: Final = 3
BREAKER_FAILURES: Final = 5
BREAKER_PAUSE_SECONDS: Final = 30.0
_FIRST_BACKOFF_SECONDS: Final = 0.5
_CHUNK_BYTES: Final = 65_536
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PASSING: Final = frozenset({429, 500, 502, 503, 504})
"""Answers that a later try may change."""
_NO_ANSWER: Final = (OSError, HTTPError, HTTPException)
"""A connection that fails, and one over which something else than HTTP comes back."""
_OF_ONE_ORIGIN: Final = frozenset({"authorization", "cookie", "proxy-authorization"})


class OutboundError(Exception):
    """A call got no answer that can be used; the message holds no secret.

    :ivar is_final: whether another attempt cannot end differently.
    """

    is_final: bool = False


class OutboundRefused(OutboundError):
    """The call may not be made: its URL, host or address is not allowed."""

    is_final = True


class OutboundFailed(OutboundError):
    """The other side did not answer, or answered too much, after every try."""


class OutboundPaused(OutboundError):
    """The other side failed so often that it is left alone for a while."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    :ivar hosts: the hosts it may go to, redirects included.
    :ivar max_bytes: how long the answer's body may be.
    :ivar timeout_seconds: what one try may take; None means the client's own limit.
    :ivar max_redirects: how many redirects of a GET are followed; each is checked like the URL,
        and credentials stay with the origin they were meant for.
    """

    method: str
    url: str = field(repr=False)
    hosts: HostList
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    max_bytes: int = 1024 * 1024
    max_redirects: int = 0
    tries: int = TRIES
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


Resolve = Callable[[str, int], list[str]]


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Client:
    """Makes calls, and remembers which hosts fail. Safe to use from many threads."""

    def __init__(
        self,
        *,
        allowed_networks: tuple[Network, ...] = (),
        ca_file: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        resolve: Resolve = _resolve,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._allowed = allowed_networks
        self._timeout_seconds = timeout_seconds
        self._resolve = resolve
        self._pause = pause
        self._breakers = _Breakers()
        self._tls = ssl.create_default_context()
        if ca_file is not None:
            self._tls.load_verify_locations(ca_file)

    def send(self, call: Call) -> Answer:
        """Make a call and return its answer, whatever its status is.

        :raises OutboundRefused: when it may not be made.
        :raises OutboundPaused: when its host is left alone.
        :raises OutboundFailed: when there was no answer after every try.
        """
        target = _check(call.url, call.hosts)
        _check_headers(call.headers)
        headers = {"accept-encoding": "identity", "user-agent": "valdrix"} | {
            name.lower(): value for name, value in call.headers.items()
        }
        for hop in range(call.max_redirects + 1):
            answer = self._try_often(call, target, headers)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or location is None or call.method != "GET":
                return answer
            if hop == call.max_redirects:
                return answer
            following = _check(_follow(target, location), call.hosts)
            if following.origin != target.origin:
                headers = {k: v for k, v in headers.items() if k not in _OF_ONE_ORIGIN}
            target = following
        raise AssertionError("unreachable")

    def _try_often(self, call: Call, target: Target, headers: Mapping[str, str]) -> Answer:
        for attempt in range(1, call.tries + 1):
            self._breakers.check(target.origin)
            began = time.monotonic()
            try:
                answer = self._try(call, target, headers)
                outcome = str(answer.status)
            except OutboundRefused:
                raise
            except (*_NO_ANSWER, OutboundFailed) as error:
                answer, outcome = None, _name(error)
            is_failure = answer is None or answer.status >= 500
            self._breakers.note(target.origin, is_failure=is_failure)
            OUTBOUND_CALLS.labels("failed" if is_failure else "answered").inc()
            log.info(
                "outbound method=%s host=%s outcome=%s try=%d duration_ms=%d",
                call.method, target.origin, outcome, attempt, _ms_since(began),
            )  # fmt: skip
            if answer is not None and (answer.status not in _PASSING or attempt == call.tries):
                return answer
            if attempt < call.tries:
                self._pause(_backoff_seconds(attempt))
        raise OutboundFailed(f"{target.origin} did not answer: {outcome}")

    def _try(self, call: Call, target: Target, headers: Mapping[str, str]) -> Answer:
        """Make one connection, ask once, and read the answer within the time and the bound."""
        timeout_seconds = call.timeout_seconds or self._timeout_seconds
        connection = _CheckedConnection(
            target.host,
            target.port,
            timeout=timeout_seconds,
            tls=self._tls,
        )
        connection.choose = self._addresses_of
        ending = threading.Timer(timeout_seconds, connection.abort)
        ending.daemon = True
        ending.start()
        try:
            connection.request(
                call.method,
                target.path,
                body=call.body,
                headers={**headers, "host": target.origin, "connection": "close"},
                preload_content=False,
                decode_content=False,
            )
            response = connection.getresponse()
            body = _read_bounded(response, call.max_bytes)
            if connection.is_aborted:  # What was read may be a part only.
                raise OutboundFailed("timed out")
            names = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, names, body)
        except _NO_ANSWER:
            if connection.is_aborted:
                raise OutboundFailed("timed out") from None
            raise
        finally:
            ending.cancel()
            connection.close()

    def _addresses_of(self, host: str, port: int) -> list[str]:
        """Return what a host resolves to, when every address may be connected to.

        :raises OutboundRefused: when one may not: a mixed answer is an attack or a mistake.
        """
        texts = self._resolve(host, port)
        for text in texts:
            if not may_connect(ipaddress.ip_address(text.partition("%")[0]), self._allowed):
                raise OutboundRefused(f"{host} resolves to an address that may not be called")
        return texts


class _CheckedConnection(HTTPSConnection):
    """A connection to an address that was checked, with the certificate of the host's name."""

    choose: Callable[[str, int], list[str]]
    _handle: socket.socket | None = None

    def __init__(self, host: str, port: int, *, timeout: float, tls: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=timeout, ssl_context=tls)
        self._ending = threading.Event()

    @property
    def is_aborted(self) -> bool:
        """Tell whether the connection was cut."""
        return self._ending.is_set()

    def _new_conn(self) -> socket.socket:
        error: OSError = OSError("no address")
        for address in self.choose(self.host, self.port):
            if self.is_aborted:
                break
            try:
                connected = socket.create_connection((address, self.port), CONNECT_TIMEOUT_SECONDS)
            except OSError as failure:
                error = failure
                continue
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._handle = connected.dup()
            if self._ending.is_set():
                self.abort()
            return connected
        raise error

    def abort(self) -> None:
        """Cut the connection from another thread, wherever it stands."""
        self._ending.set()
        handle = self._handle
        if handle is not None:
            try:
                handle.shutdown(socket.SHUT_RDWR)
            except OSError:
                log.debug("an outbound connection ended by itself")

    def close(self) -> None:
        """Close the connection and its second handle."""
        super().close()
        if self._handle is not None:
            self._handle.close()


class _Breakers:
    """Counts failures in a row by origin; after five the origin is left alone for a while.

    When the pause is over one call is let through: its end closes the breaker or pauses again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: dict[str, tuple[int, float]] = {}

    def check(self, origin: str) -> None:
        """Refuse a call to an origin that is left alone.

        :raises OutboundPaused: when it is.
        """
        with self._lock:
            failures, until = self._failures.get(origin, (0, 0.0))
            if failures < BREAKER_FAILURES:
                return
            now = time.monotonic()
            if now < until:
                raise OutboundPaused(f"{origin} keeps failing; it is asked again later")
            self._failures[origin] = (failures, now + BREAKER_PAUSE_SECONDS)

    def note(self, origin: str, *, is_failure: bool) -> None:
        """Count a call's end."""
        with self._lock:
            if not is_failure:
                self._failures.pop(origin, None)
                return
            failures = self._failures.get(origin, (0, 0.0))[0] + 1
            self._failures[origin] = (failures, time.monotonic() + BREAKER_PAUSE_SECONDS)


@lru_cache(maxsize=1)
def client() -> Client:
    """Return the process's client, as the settings have it."""
    return Client(
        allowed_networks=settings.OUTBOUND_ALLOWED_NETWORKS, ca_file=settings.OUTBOUND_CA_FILE
    )


def send(call: Call) -> Answer:
    """Make a call by the process's client and return its answer, whatever its status is.

    :raises OutboundError: when there is none; see :meth:`Client.send`.
    """
    return client().send(call)


def _check(url: str, hosts: HostList) -> Target:
    try:
        target = read_url(url)
    except AddressError as error:
        raise OutboundRefused(str(error)) from None
    if not hosts.covers(target):
        raise OutboundRefused(f"the host {target.origin} is not on the list of allowed ones")
    return target


def _check_headers(headers: Mapping[str, str]) -> None:
    """Refuse headers that cannot be sent, such as a token of another system that is none."""
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        raise OutboundRefused("a header holds what no header may hold")


def _follow(target: Target, location: str) -> str:
    """Return the URL that a redirect leads to."""
    try:
        return urljoin(f"https://{target.origin}{target.path}", location)
    except ValueError:
        raise OutboundRefused("the redirect leads to what is no URL") from None


def _read_bounded(response: HTTPResponse, max_bytes: int) -> bytes:
    parts, size = [], 0
    for part in response.stream(_CHUNK_BYTES, decode_content=False):
        size += len(part)
        if size > max_bytes:
            raise OutboundRefused(f"the answer is larger than {max_bytes} bytes")
        parts.append(part)
    return b"".join(parts)


def _backoff_seconds(attempt: int) -> float:
    """Return the pause after a failed try: 0.5 s, 1 s, … and up to half as much again."""
    return _FIRST_BACKOFF_SECONDS * 2.0 ** (attempt - 1) * (1 + random.random() / 2)  # noqa: S311 - spreads tries


def _name(error: Exception) -> str:
    return str(error) if isinstance(error, OutboundFailed) else type(error).__name__


def _ms_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
