"""Factor `email`: a code in an e-mail, and a link that does the same (`codes.link`).

NIST SP 800-63B-4, 3.1.3 does not count e-mail as out of band, for a mailbox opens with a password, often from the very
device that asks. So it is off until the operator writes that they know (`counts_as_second_factor: true`).
"""

from __future__ import annotations

from gateway.mfa.codes.factor import SentCode
from gateway.mfa.codes.masked import masked_email


class Email(SentCode):
    """Codes to an e-mail address."""

    name = "email"
    linked = True

    def masked(self, address: str) -> str:
        """`a***@example.org`."""
        return masked_email(address)
