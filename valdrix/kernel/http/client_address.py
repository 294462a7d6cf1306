"""Client addresses: where a request came from, for the audit log."""

from __future__ import annotations

import ipaddress

from django.http import HttpRequest


def client_address(request: HttpRequest) -> str | None:
    """Return the address of the peer, or None when it has none (a Unix socket).

    ``X-Forwarded-For`` is not believed: anybody can send it.
    """
    text = request.META.get("REMOTE_ADDR", "")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
