"""One request: what calls, what it brings, and what it is answered."""

from relay.receive.receiver import blueprint
from relay.receive.strays import Strays

__all__ = ["Strays", "blueprint"]
