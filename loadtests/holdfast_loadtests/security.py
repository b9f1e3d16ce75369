"""TLS of a load: which files make it."""

import ssl
from dataclasses import dataclass

from holdfast.cli import InputError


@dataclass(frozen=True)
class Security:
    """Paths of PEM files: the CAs trusted (empty: the system's), and the client's own certificate and key, if any."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """The context for connections; HTTP/2 is asked for by ALPN.

        Raises:
            InputError: a file cannot be read, or certificate and key do not belong together.
        """
        if bool(self.cert) != bool(self.key):
            raise InputError("--cert and --key go together: a certificate is of no use without its key")
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(filter(None, (self.ca, self.cert, self.key)))
            raise InputError(f"cannot use {files} for TLS: {error}. Expected PEM files.") from error
        context.set_alpn_protocols(["h2"])
        return context
