"""Addresses: where an outbound call may connect to, by host name and by resolved address. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

HTTPS_PORT: Final = 443
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*",
    re.ASCII,
)
_ENTRY: Final = re.compile(rf"(\*\.)?({_HOST.pattern})(?::([0-9]{{1,5}}))?", re.ASCII)
_LONGEST_URL: Final = 8192

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressError(ValueError):
    """A text is not a URL that may be called, or an entry of a list of hosts."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads: host, port, and the path with its query."""

    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Return the host, with the port where it is not the usual one."""
        return self.host if self.port == HTTPS_PORT else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class HostList:
    """Hosts that may be called: ``host``, ``host:port`` or ``*.domain``; or every public one.

    An entry without a port stands for 443; ``*.domain`` does not cover ``domain`` itself.
    """

    exact: frozenset[tuple[str, int]] = frozenset()
    domains: frozenset[tuple[str, int]] = frozenset()
    is_everything: bool = False

    def covers(self, target: Target) -> bool:
        """Tell whether a target may be called."""
        if self.is_everything or (target.host, target.port) in self.exact:
            return True
        labels = target.host.split(".")
        parents = (".".join(labels[start:]) for start in range(1, len(labels)))
        return any((parent, target.port) in self.domains for parent in parents)


ANY_HOST: Final = HostList(is_everything=True)
"""For addresses that a tenant's own owner configured; what they resolve to is still checked."""


def read_host_list(entries: list[str]) -> HostList:
    """Return the list that texts spell.

    :raises AddressError: for an entry that is none.
    """
    exact: set[tuple[str, int]] = set()
    domains: set[tuple[str, int]] = set()
    for entry in entries:
        match = _ENTRY.fullmatch(entry.strip().lower())
        if match is None or not 1 <= int(match[3] or HTTPS_PORT) <= 65535:
            raise AddressError(f"{entry!r} is not a host, host:port or *.domain")
        (domains if match[1] else exact).add((match[2], int(match[3] or HTTPS_PORT)))
    return HostList(frozenset(exact), frozenset(domains))


def read_url(url: str) -> Target:
    """Return where an https URL leads.

    User names, fragments, other schemes, blanks and hosts that are not plain ASCII names are
    refused: two readers of such a URL may disagree about its host.

    :raises AddressError: for a URL that may not be called.
    """
    if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise AddressError("the URL holds what no URL may hold")
    if "\\" in url:
        raise AddressError("the URL holds a backslash")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise AddressError("the URL cannot be read") from None
    if parts.scheme.lower() != "https":
        raise AddressError("only https is called")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise AddressError("the URL holds a user name, a password or a fragment")
    if host is None or not _HOST.fullmatch(host) or port == 0:
        raise AddressError("the URL names no host")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(host=host, port=HTTPS_PORT if port is None else port, path=path)


def read_networks(entries: list[str]) -> tuple[Network, ...]:
    """Return the networks that texts in CIDR notation spell.

    :raises AddressError: for one that is none, or has bits below its mask.
    """
    networks = []
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry.strip()))
        except ValueError as error:
            raise AddressError(str(error)) from None
    return tuple(networks)


def may_connect(address: Address, allowed: tuple[Network, ...]) -> bool:
    """Tell whether an address is on the public internet, or in a network that is allowed.

    Loopback, link-local (where clouds keep their metadata), private, shared, multicast and
    reserved addresses are not public; nor are IPv6 forms that carry such an IPv4 address.
    """
    plain = _carried(address)
    if any(one in network for network in allowed for one in (address, plain)):
        return True
    if isinstance(plain, ipaddress.IPv6Address) and any(plain in one for one in _NO_HOSTS):
        return False
    return all(one.is_global and not one.is_multicast for one in (address, plain))


_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_NO_HOSTS: Final = tuple(
    ipaddress.IPv6Network(text)
    # IPv4-compatible and -translated forms and local NAT64, old site-local addresses, SRv6 SIDs:
    # none is a public host, and some carry an IPv4 address at a place of their own.
    for text in ("::/8", "fec0::/10", "5f00::/16")
)


def _carried(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
