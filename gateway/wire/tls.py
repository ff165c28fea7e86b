"""TLS towards clients: a certificate for each name, read anew when their files change.

Each handshake takes the newest `context`, so a change needs no restart and touches no connection that is there. A file
that is not fit to be used changes nothing: the last good certificates stay, and whoever watches over us is told.

The names are those a certificate states itself (subject alternative names), exact or with a wildcard for the first
label. Whoever asks for another name, or for none, gets the first certificate and finds out: an alert would tell the
curious which names there are, and break clients that go by address.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography import x509
from cryptography.x509.oid import NameOID

from gateway.core.certificate import Certificate
from gateway.core.clock import Clock
from gateway.core.errors import ConfigError, Problem
from gateway.crypto.files import read_private
from gateway.policy.watch import Watch

ClientCertificates = Literal["none", "optional", "required"]
MINIMUM: Mapping[str, ssl.TLSVersion] = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

_ASKED: Mapping[ClientCertificates, ssl.VerifyMode] = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_log = logging.getLogger(__name__)


class Files(NamedTuple):
    """A certificate with its chain, and its key; both PEM."""

    certificate: Path
    key: Path


class ServerTls:
    """The TLS of one listener."""

    def __init__(
        self,
        files: Sequence[Files],
        *,
        clock: Clock,
        client_certificates: ClientCertificates = "none",
        client_ca: Path | None = None,
        minimum: str = "1.2",
    ) -> None:
        """Read everything. `minimum`: one of `MINIMUM`. Raises `ConfigError` for what is not fit to be used."""
        self._files = tuple(files)
        self._clock = clock
        self._client_certificates = client_certificates
        self._client_ca = client_ca
        self._minimum = MINIMUM[minimum]
        self.context: ssl.SSLContext
        """For the next handshake."""
        self.expiry: Mapping[str, float] = {}
        """First name of each certificate → when it ends, in seconds since the epoch."""
        self.problem = ""
        """Why the files as they are now are not the ones in use; empty: they are."""
        self.load()

    def load(self) -> None:
        """Use the files as they are now. Raises `ConfigError`, and then goes on with what it had."""
        problems: list[Problem] = []
        contexts: dict[str, ssl.SSLContext] = {}
        expiry: dict[str, float] = {}
        first: ssl.SSLContext | None = None
        for files in self._files:
            try:
                context, leaf = self._context(files), _leaf(files.certificate)
            except ConfigError as error:
                problems += error.problems
                continue
            first = first or context
            names = names_of(leaf)
            for name in names:
                contexts.setdefault(name, context)
            expiry[names[0] if names else _common_name(leaf)] = ends = leaf.not_valid_after_utc.timestamp()
            if ends < self._clock.now():
                _log.warning("certificate %s has expired; clients will not accept it", files.certificate)
        if problems or first is None:
            self.problem = str(problems[0]) if problems else "no certificate"
            raise ConfigError(problems or self.problem)
        if len(self._files) > 1:
            first.sni_callback = _chooser(contexts, first)
        self.context, self.expiry, self.problem = first, expiry, ""

    def watch(self, name: str) -> Watch:
        """Looks at the files, and uses them when they have changed. `name`: of the listener, for the log."""

        async def reload() -> None:
            try:
                await asyncio.to_thread(self.load)
            except ConfigError as error:
                for problem in error.problems:
                    _log.error("certificates of %s not reloaded: %s", name, problem)
            else:
                _log.info("certificates of %s reloaded: %s", name, ", ".join(self.expiry))

        return Watch(self._files[0].certificate, reload, look=self.look)

    def look(self) -> str:
        """What is in all files: another text when anything has changed."""
        digest = hashlib.sha256()
        for path in self._paths():
            try:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            except OSError as error:
                digest.update(f"away: {error.errno}".encode())
        return digest.hexdigest()

    def certificate_of(self, connection: ssl.SSLObject | None) -> Certificate | None:
        """What the client has shown on this connection; None where it showed nothing, or what cannot be read."""
        shown = connection.getpeercert(binary_form=True) if connection is not None else None
        if not shown:
            return None
        try:
            return read(shown)
        except ValueError:
            _log.warning("a client's certificate, though signed, cannot be read; it counts as none")
            return None

    def _paths(self) -> list[Path]:
        ours = [path for files in self._files for path in files]
        return [*ours, self._client_ca] if self._client_ca is not None else ours

    def _context(self, files: Files) -> ssl.SSLContext:
        read_private(files.key)  # whoever else can read it can be us
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Without a password given, OpenSSL would ask whoever sits at the terminal.
            context.load_cert_chain(files.certificate, files.key, password="")
        except (OSError, ValueError) as error:
            suggestion = f"is {files.key} the key of this certificate, PEM and without a password?"
            raise ConfigError(
                [Problem(f"cannot be used: {_why(error)}", str(files.certificate), 0, suggestion)]
            ) from None
        context.verify_mode = _ASKED[self._client_certificates]
        if self._client_ca is not None:
            # Each handshake shows the certificate again: nobody comes in by an authority of yesterday.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ValueError) as error:
                raise ConfigError([Problem(f"holds no authorities: {_why(error)}", str(self._client_ca))]) from None
        return context


def read(der: bytes) -> Certificate:
    """A certificate as facts. Raises ValueError."""
    from cryptography.hazmat.primitives.hashes import SHA256

    parsed = x509.load_der_x509_certificate(der)
    names = _alternatives(parsed)
    return Certificate(
        subject=parsed.subject.rfc4514_string(),
        issuer=parsed.issuer.rfc4514_string(),
        serial=f"{parsed.serial_number:x}",
        fingerprint=parsed.fingerprint(SHA256()).hex(),
        dns=tuple(names.get_values_for_type(x509.DNSName)),
        emails=tuple(names.get_values_for_type(x509.RFC822Name)),
        uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
        not_after=parsed.not_valid_after_utc.timestamp(),
    )


def names_of(certificate: x509.Certificate) -> list[str]:
    """Host names it is for, lower case, wildcards as they stand."""
    return [name.lower() for name in _alternatives(certificate).get_values_for_type(x509.DNSName)]


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def _leaf(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise ConfigError([Problem(f"cannot be used: {_why(error)}", str(path))]) from None


def _common_name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else f"{certificate.serial_number:x}"


def _chooser(
    contexts: Mapping[str, ssl.SSLContext], otherwise: ssl.SSLContext
) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        asked = (name or "").lower()
        connection.context = contexts.get(asked) or contexts.get("*." + asked.partition(".")[2]) or otherwise

    return choose


def _why(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
