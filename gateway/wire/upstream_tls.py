"""TLS towards a service: whom to believe, and who we are.

The certificate is verified against the system's authorities, or against `ca` alone, and must name the host (RFC 9110,
section 4.3.4; RFC 9525). Certificates are renewed while a gateway runs, so the files are looked at again and again; a
half-written pair is tried again later, and the last good one is used meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from gateway.core.errors import ConfigError

_log = logging.getLogger(__name__)


class UpstreamTls:
    """How to make a TLS connection to one service."""

    def __init__(
        self,
        upstream: str,
        *,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        server_name: str = "",
        verify: bool = True,
    ) -> None:
        """Raises `ConfigError` where a file is not fit to use. `certificate` and `key` are PEM, and ours (mTLS)."""
        self.server_name = server_name
        """The name its certificate has to carry; empty: the host of the endpoint."""
        self._upstream = upstream
        self._ca = ca
        self._certificate = certificate
        self._key = key
        self._verify = verify
        self._files = [file for file in (ca, certificate, key) if file is not None]
        self._seen = self._stamps()
        try:
            self.context = self._read()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"upstream `{upstream}`: its TLS files cannot be used: {error}",
                "`tls.ca`, `tls.certificate` and `tls.key` are PEM files; the key has no password",
            ) from None

    def refresh(self) -> None:
        """Read the files again if they have changed. Never raises."""
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self.context = self._read()
        except (OSError, ValueError) as error:
            _log.error("upstream %s: new TLS files cannot be used, the old ones stay: %s", self._upstream, error)
        else:
            _log.info("upstream %s: TLS files read again", self._upstream)

    def _stamps(self) -> list[tuple[int, int, int]]:
        stamps = []
        for file in self._files:
            try:
                found = file.stat()
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
        return stamps

    def _read(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._ca) if self._ca is not None else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._certificate is not None:
            # A password would be asked for on the terminal otherwise.
            context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        return context


def ended_well(transport: asyncio.BaseTransport) -> bool:
    """Whether the other end said that it had sent everything; over TLS, anybody can end the TCP connection below.

    RFC 9112, section 9.8. True without TLS, where nobody can tell.
    """
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        return True
    try:
        return bool(tls.read(1) == b"")
    except ssl.SSLZeroReturnError:
        return True
    except (ssl.SSLError, ValueError):
        return False
