"""The certificate a client has shown, and proven to hold the key of, in the TLS handshake."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Certificate:
    """What it says of its holder; verified against the listener's `client_ca` before anybody sees this."""

    subject: str
    """Distinguished name (RFC 4514), as in `CN=ann,OU=ops,O=Example`."""
    issuer: str
    """Distinguished name of who signed it."""
    serial: str
    """Lower case hexadecimal without leading zeros."""
    fingerprint: str
    """SHA-256 over the whole certificate (DER), 64 lower case hexadecimal digits."""
    dns: tuple[str, ...]
    """Subject alternative names: host names, as written."""
    emails: tuple[str, ...]
    """Subject alternative names: mailboxes (RFC 822)."""
    uris: tuple[str, ...]
    """Subject alternative names: URIs, SPIFFE ids among them."""
    not_after: float
    """When it ends, in seconds since the epoch."""
