"""Phone numbers: one spelling, and which of them are written to (ITU-T E.164; Google's libphonenumber).

Each message costs, and whoever runs a premium number, or is paid by an operator for traffic to a range, earns by
having us write to it. So only mobile numbers are written to, never those of services nor of no country, and operators
may name prefixes that are not, or the only ones that are. A code is to show that somebody holds one device, which a
number of voice over IP does not (NIST SP 800-63B, on out-of-band authenticators).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import phonenumbers
from phonenumbers import PhoneNumberType

from gateway.core.errors import UserError
from gateway.core.words import say

LONGEST: Final = 32
"""Characters of what somebody types."""
REACHED: Final = frozenset({PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE})
NOWHERE: Final = "001"
"""The region of numbers that belong to no country: satellites, networks of machines, premium services."""


class Numbers:
    """Which numbers are written to."""

    def __init__(self, *, region: str = "", deny: Sequence[str] = (), allow: Sequence[str] = ()) -> None:
        """`region`: the country of numbers without one (ISO 3166), empty: they need `+`. `deny` and `allow`: prefixes
        as in `+1900`; with `allow` no others are written to.
        """
        self._region = region or None
        self._deny = tuple(deny)
        self._allow = tuple(allow)

    def canonical(self, text: str) -> str:
        """`text` in E.164. Raises `UserError` ERR-PHONE-INVALID; ERR-PHONE-REFUSED for one that is not written to."""
        number = self._read(text)
        spelled = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        reached = phonenumbers.number_type(number) in REACHED and phonenumbers.region_code_for_number(number) != NOWHERE
        if not reached or spelled.startswith(self._deny) or (self._allow and not spelled.startswith(self._allow)):
            raise UserError("ERR-PHONE-REFUSED", say("We do not send codes to this number. Please use another one."))
        return spelled

    def _read(self, text: str) -> phonenumbers.PhoneNumber:
        invalid = UserError(
            "ERR-PHONE-INVALID", say("That is not a phone number. Please write it with + and its country.")
        )
        if len(text) > LONGEST or any(character.isalpha() for character in text):
            raise invalid
        try:
            number = phonenumbers.parse(text, self._region)
        except phonenumbers.NumberParseException:
            raise invalid from None
        if number.extension or not phonenumbers.is_valid_number(number):
            raise invalid
        return number
