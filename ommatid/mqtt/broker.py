"""Where an MQTT broker is, and mTLS with it."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from ommatid.errors import LinkError


class _TidySocket(ssl.SSLSocket):
    """A socket that closes itself when the handshake fails; paho would leave it open at each attempt."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature of the standard library
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker listens, and what proves who is who."""

    host: str
    port: int
    ca: Path
    certificate: Path
    key: Path

    def tls(self) -> ssl.SSLContext:
        """Return a context that trusts our CA alone and shows our certificate.

        Raises:
            LinkError: A file is missing or is not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = _TidySocket
        try:
            context.load_verify_locations(self.ca)
            context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            raise LinkError(
                f"{self.certificate.parent}: the certificate, its key or the CA cannot be read ({error})",
                hint="enrol this identity again",
            ) from error
        return context

    def __str__(self) -> str:
        """Return host:port."""
        return f"{self.host}:{self.port}"
