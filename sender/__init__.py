"""Plays GoFax: makes events, signs them, and posts them to an endpoint.

>>> from sender import Event, deliver
>>> answer = deliver("http://127.0.0.1:8080/webhooks/gofax", Event(), secret="…")
>>> answer.status, answer.text

Nothing is tried twice, no redirect is followed, and an answer of any status is returned.
"""

from sender.delivery import Answer, deliver
from sender.errors import SenderError
from sender.event import Event
from sender.signing import sign

__all__ = ["Answer", "Event", "SenderError", "deliver", "sign"]
