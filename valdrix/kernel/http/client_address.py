"""Client addresses: where a request came from, for the audit log and for limits by address."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest

from valdrix.kernel.addresses import Address

_MOST_HOPS = 20


def client_address(request: HttpRequest) -> str | None:
    """Return the address that a request came from, or None when it has none (a Unix socket).

    ``X-Forwarded-For`` is believed only from a peer in ``TRUSTED_PROXY_CIDRS``, and only as far
    as such proxies wrote it: from its end, the first address that is not one of theirs.
    """
    peer = _read(request.META.get("REMOTE_ADDR", ""))
    if peer is None:
        return None
    client = peer
    header = request.META.get("HTTP_X_FORWARDED_FOR", "")
    if settings.TRUST_PROXY_HEADERS and header and _is_proxy(peer):
        for text in reversed(header.rsplit(",", _MOST_HOPS)):
            hop = _read(text)
            if hop is None:
                break  # Whoever wrote that, no proxy of ours did.
            client = hop
            if not _is_proxy(hop):
                break
    return str(client)


def _is_proxy(address: Address) -> bool:
    return any(address in network for network in settings.TRUSTED_PROXY_CIDRS)


def _read(text: str) -> Address | None:
    """Return the address that a text is, an IPv4 one also where it is written as IPv6."""
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
