"""Authorities and certificates, made when a test asks for them."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_YEAR = datetime.timedelta(days=365)


class Made(NamedTuple):
    """Two PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; its own is `path`."""

    def __init__(self, folder: Path, name: str = "Rig Authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * _YEAR)
            .not_valid_after(now + _YEAR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path = folder / f"{name.replace(' ', '-').lower()}.pem"
        self.path.write_bytes(_pem(self._certificate))

    def make(
        self,
        file: str,
        *names: str,
        common_name: str = "",
        emails: Sequence[str] = (),
        uris: Sequence[str] = (),
        ends: datetime.timedelta = _YEAR,
        password: bytes = b"",
    ) -> Made:
        """A certificate for host `names`, ending in `ends` from now, in `<file>.crt` and `<file>.key`; files that are
        there are replaced at once, as a mounted secret's are."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(
                x509.Name(
                    [
                        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Rig"),
                        x509.NameAttribute(NameOID.COMMON_NAME, common_name or (names or ("nobody",))[0]),
                    ]
                )
            )
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _YEAR)
            .not_valid_after(now + ends)
        )
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.RFC822Name(email) for email in emails]
        alternatives += [x509.UniformResourceIdentifier(uri) for uri in uris]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        made = Made(self._folder / f"{file}.crt", self._folder / f"{file}.key")
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
        )
        _replace(made.certificate, _pem(builder.sign(self._key, hashes.SHA256())), 0o644)
        _replace(made.key, private, 0o600)
        return made


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _replace(path: Path, data: bytes, mode: int) -> None:
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(data)
    beside.chmod(mode)
    os.replace(beside, path)
