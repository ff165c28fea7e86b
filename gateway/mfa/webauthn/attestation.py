"""Who made a key: packed attestation (section 8.2) up to a certificate that the operator named.

Only `packed` with a certificate says by itself which model a key is. A self-attested key says what it likes; and what
platforms attest (`tpm`, `android-key`, `apple`) vouches for a key but not for the AAGUID beside it.
"""

from __future__ import annotations

import uuid
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from gateway.core.errors import NotProven

AAGUID_EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.45724.1.1.4")
"""id-fido-gen-ce-aaguid: the model that a certificate speaks for."""


def check(fmt: str, certificates: Any, aaguid: str) -> None:
    """Raises `NotProven` unless the first of `certificates` (DER) may speak for `aaguid` (section 8.2.1).

    That its chain ends at a maker, and that it signed, is verified before.
    """
    if fmt != "packed" or not isinstance(certificates, list) or not certificates:
        raise NotProven("attestation")
    try:
        leaf = x509.load_der_x509_certificate(bytes(certificates[0]))
        units = [name.value for name in leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
        names = {attribute.oid for attribute in leaf.subject}
        authority = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        extension = _extension(leaf)
    except Exception as error:  # whatever a certificate makes of it: not all that is raised is a ValueError
        raise NotProven("attestation") from error
    wanted = {NameOID.COUNTRY_NAME, NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME}
    if (
        leaf.version is not x509.Version.v3
        or units != ["Authenticator Attestation"]
        or not wanted <= names
        or authority
    ):
        raise NotProven("attestation")
    if extension is not None and extension != b"\x04\x10" + uuid.UUID(aaguid).bytes:
        raise NotProven("attestation")


def _extension(leaf: x509.Certificate) -> bytes | None:
    """The DER of the AAGUID extension, an OCTET STRING. Raises ValueError where it is marked critical."""
    try:
        found = leaf.extensions.get_extension_for_oid(AAGUID_EXTENSION)
    except x509.ExtensionNotFound:
        return None
    if found.critical or not isinstance(found.value, x509.UnrecognizedExtension):
        raise ValueError("critical")
    return found.value.value
