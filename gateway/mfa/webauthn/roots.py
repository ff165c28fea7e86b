"""The certificates of makers that the operator names."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.core.errors import ConfigError


def read(path: Path) -> tuple[bytes, ...]:
    """Each certificate in the file, in PEM. Raises `ConfigError`."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"mfa.webauthn.roots: {path} cannot be read: {getattr(error, 'strerror', None) or error}",
            "give a file with the certificates of the makers, in PEM",
        ) from error
    return tuple(one.public_bytes(Encoding.PEM) for one in found)
