"""Which address does a proxy name as the caller's, and who is behind it?"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence

#: Bits of an IPv6 address that tell its holder; the others are the holder's to choose.
HOLDER_BITS = 64


def address(text: str) -> str | None:
    """Return the address in *text*, its port left out; None if it is none.

    >>> address("198.51.100.7:40000"), address("[2001:db8::1]:443"), address("unknown")
    ('198.51.100.7', '2001:db8::1', None)
    """
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    # The zone of a link-local address is the proxy's matter, and any text passes for one.
    text = text.partition("%")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return str(getattr(found, "ipv4_mapped", None) or found)


def caller(remote: str, forwarded: str, *, proxies: int) -> str:
    """Return the caller's address: what the last of *proxies* saw, or *remote* if none says.

    *forwarded*: X-Forwarded-For, to which each proxy appends what it saw; what stands before that
    was written by the caller.

    >>> caller("10.0.0.1", "192.0.2.9, 198.51.100.7:40000", proxies=1)
    '198.51.100.7'
    """
    # Quotes end no entry: the caller's own could swallow the proxies' entries.
    entries = forwarded.split(",")
    if not 0 < proxies <= len(entries):
        return remote
    return address(entries[-proxies]) or remote


def is_within(text: str, networks: Sequence[str]) -> bool:
    """Return whether the address *text* is in one of *networks*.

    >>> is_within("::ffff:198.51.100.7", ["198.51.100.0/24"]), is_within("anything", ["::/0"])
    (True, False)
    """
    found = address(text)
    if found is None:
        return False
    each = ipaddress.ip_address(found)
    return any(each in network(name) for name in networks)


@functools.lru_cache(maxsize=1024)
def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Read a network. Raises ValueError."""
    return ipaddress.ip_network(text)


@functools.lru_cache(maxsize=1024)
def holder(text: str) -> str:
    """Return who is counted for an address: itself, or its network if it is one of IPv6.

    >>> holder("198.51.100.7"), holder("2001:db8::1"), holder("anything")
    ('198.51.100.7', '2001:db8::/64', 'anything')
    """
    found = address(text)
    if found is None or ":" not in found:
        return found or text
    return str(ipaddress.ip_network(f"{found}/{HOLDER_BITS}", strict=False))
