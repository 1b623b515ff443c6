"""Which address does a proxy name as the caller's?"""

from __future__ import annotations

import ipaddress


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
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
