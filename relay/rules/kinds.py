"""Which problems are there, how grave are they, and what happens to them?"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal


class Kind(StrEnum):
    """What is wrong."""

    #: A destination refuses our credentials.
    UNAUTHORIZED = "unauthorized"
    #: A destination fails again and again.
    FAILING = "failing"
    #: A person paused a destination, or it has asked us to wait for long.
    PAUSED = "paused"
    DEAD = "dead"
    HELD = "held"
    #: Deliveries are due for long, and nothing else says why.
    BACKLOG = "backlog"
    NO_WORKER = "no_worker"
    SILENT_NODE = "silent_node"
    #: Requests with a signature are refused: the secret is probably wrong.
    SIGNATURES = "signatures"
    #: Requests with a signature come to a path that is no endpoint.
    UNKNOWN_PATH = "unknown_path"
    #: The file of the config is newer than what a node runs.
    CONFIG = "config"
    #: Events cannot be written.
    STORE = "store"
    #: An alert could not be sent.
    ALERTS = "alerts"
    #: That of `public_url` is not trusted, or will soon not be.
    CERTIFICATE = "certificate"
    #: Requests are signed with a secret that is not the first of its endpoint, or ends soon.
    OLD_SECRET = "old_secret"
    #: No event for long, although the business is open.
    SILENCE = "silence"


Level = Literal["warning", "error"]
#: What happens to a problem and is told.
Change = Literal["opened", "escalated", "resolved"]
