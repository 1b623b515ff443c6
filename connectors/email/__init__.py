"""A shared inbox: an e-mail per event, threaded by conversation, handed to an SMTP server."""

from connectors.email.connector import Email

__all__ = ["Email"]
