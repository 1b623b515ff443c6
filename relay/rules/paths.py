"""Which endpoint did a call to an unknown path mean?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def meant(path: str, known: Iterable[str]) -> str | None:
    """Return the path of *known* that *path* is probably a slip for; None: nobody can tell.

    >>> meant("/webhooks/gofax/", ["/webhooks/gofax"]), meant("/gofax", ["/webhooks/gofax"])
    ('/webhooks/gofax', '/webhooks/gofax')
    >>> meant("/wp-login.php", ["/webhooks/gofax"])
    """
    plain = {_plain(each): each for each in known}
    asked = _plain(path)
    if asked in plain:
        return plain[asked]
    parts = [each for each in plain if asked and (each.endswith(asked) or asked.endswith(each))]
    if len(parts) == 1:
        return plain[parts[0]]
    near = difflib.get_close_matches(asked[:200], plain, n=1, cutoff=0.75)
    return plain[near[0]] if near else None


def _plain(path: str) -> str:
    """Return *path* without what people add and leave out."""
    return "/" + "/".join(part for part in path.lower().split("/") if part) if path != "/" else ""
