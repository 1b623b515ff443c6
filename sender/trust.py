"""Trust in TLS certificates: GoFax calls only what a public CA vouches for."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from sender.errors import SenderError


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """The CAs that may vouch for a receiver; by default the public ones."""

    #: A file of CA certificates that stand in for the public ones.
    ca: Path | None = None
    #: Whether every certificate is accepted.
    insecure: bool = False

    @property
    def verify(self) -> bool | str:
        """The setting ``verify`` of ``requests``."""
        return not self.insecure and (str(self.ca) if self.ca else True)

    def context(self) -> ssl.SSLContext:
        """Make the same for a socket.

        Raises :class:`SenderError` if the file holds no certificate.
        """
        try:
            context = ssl.create_default_context(cafile=str(self.ca or DEFAULT_CA_BUNDLE_PATH))
        except (OSError, ssl.SSLError) as error:
            raise SenderError(f"{self.ca}: no usable CA certificates: {error}") from error
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


PUBLIC = Trust()
