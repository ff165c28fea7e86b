"""Factor `sms`: a code in a text message.

NIST SP 800-63B-4, 3.1.3.3 calls it restricted: numbers are taken over, messages are read on the way. It is offered
where the operator says so, and whoever sets it up is told that there is something better.
"""

from __future__ import annotations

from gateway.mfa.codes.factor import SentCode
from gateway.mfa.codes.masked import masked_number


class Sms(SentCode):
    """Codes to a telephone number (E.164)."""

    name = "sms"

    def masked(self, address: str) -> str:
        """`+90 *** ** 12`."""
        return masked_number(address)
