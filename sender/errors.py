"""The one error that the sender raises."""

from __future__ import annotations


class SenderError(Exception):
    """Something could not be sent. The message says what, where, and how to mend it."""
