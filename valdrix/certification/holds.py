"""What holds a release: alerts that Prometheus says are firing, asked when the release is gated."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from valdrix.kernel.strict_json import StrictJsonError, loads

HOLDS: Final = "holds_release"
"""The label of an alert while which nothing is promoted."""
_SILENT: Final = frozenset({"inactive", "pending"})
_WITHIN_SECONDS: Final = 10.0
_MOST_BYTES: Final = 16 * 1024 * 1024


class PrometheusSilent(Exception):
    """Prometheus could not be asked, or its answer is none; the message says why."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What Prometheus watches for a release.

    :ivar watched: the alerts that would hold it, by name.
    :ivar firing: those that do now.
    """

    watched: tuple[str, ...]
    firing: tuple[str, ...]


def ask_prometheus(url: str) -> Watch:
    """Return the alerts that hold a release, and those of them that fire.

    :raises PrometheusSilent: when it does not answer as Prometheus does.
    """
    watched, firing = set(), set()
    for group in _objects(_get(url, "/api/v1/rules?type=alert").get("groups")):
        for rule in _objects(group.get("rules")):
            labels = rule.get("labels")
            if not isinstance(labels, dict) or labels.get(HOLDS) != "true":
                continue
            name = str(rule.get("name"))
            watched.add(name)
            if rule.get("state") == "firing":
                firing.add(name)
            elif rule.get("state") not in _SILENT or rule.get("health", "ok") != "ok":
                raise PrometheusSilent(f"{url} cannot tell whether {name} fires")
    return Watch(tuple(sorted(watched)), tuple(sorted(firing)))


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list, none of what is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def is_http_url(text: str) -> bool:
    """Tell whether a text is an address that can be asked."""
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _get(url: str, path: str) -> dict[str, Any]:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_WITHIN_SECONDS)
    try:
        connection.request("GET", parts.path.rstrip("/") + path)
        response = connection.getresponse()
        body = response.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise PrometheusSilent(f"{url} does not answer: {error}") from error
    finally:
        connection.close()
    try:
        document = loads(body)
    except StrictJsonError as error:
        raise PrometheusSilent(f"{url} answers {response.status}, which is {error}") from None
    data = document.get("data") if isinstance(document, dict) else None
    if response.status != 200 or not isinstance(data, dict):
        raise PrometheusSilent(f"{url} answers {response.status} and no data")
    return data
