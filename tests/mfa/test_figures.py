"""Numbers that a standard gives, as it gives them: everything else is tested by their names, and would go with them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gateway import settings
from gateway.mfa import (
    attempts,
    backup_codes,
    demands,
    enrolment,
    interrupted,
    otp,
    recovery,
    reminders,
    stepup,
    trusted_devices,
)
from gateway.mfa.codes import binding, code, sends
from gateway.mfa.webauthn import ceremony, credential
from gateway.mfa.webauthn.relying_party import ALGORITHMS
from gateway.web import proof

FIGURES = {
    "five tries, then fifteen minutes": (attempts.RUN, attempts.WAIT, 5, 900.0),
    "which double, to an hour (NIST SP 800-63B-4, 3.2.2)": (attempts.WAIT * 2**attempts.DOUBLINGS, 3600.0),
    "a hundred failures in a row (NIST SP 800-63B-4, 3.2.2)": (attempts.LIFE, 100),
    "ten minutes for a question (ASVS 5.0, 6.5.5)": (stepup.LIFETIME, 600.0),
    "ten minutes, six digits (NIST SP 800-63B-4, 3.1.3.2)": (code.LIFETIME, code.DIGITS, 600.0, 6),
    "ten minutes for a setup": (enrolment.SETUP_LIFETIME, 600.0),
    "six digits, thirty seconds, one step either way (RFC 6238, 5.2)": (otp.DIGITS, otp.STEP, otp.WINDOW, 6, 30, 1),
    "160 bits (RFC 4226, 4, R6)": (otp.SECRET_BYTES, 20),
    "ten codes of fifty bits, for ninety days": (
        *(backup_codes.COUNT, backup_codes.LENGTH, len(set(backup_codes.ALPHABET)), backup_codes.LIFETIME),
        *(10, 10, 32, 90 * 86_400.0),
    ),
    "half a minute, then twice as long; five in an hour": (sends.GAP, sends.HOURLY, sends.HOUR, 30.0, 5, 3600.0),
    "ten in a day to one address, five of them of strangers": (
        sends.DAILY,
        sends.STRANGERS,
        sends.DAY,
        10,
        5,
        86_400.0,
    ),
    "five apps, five addresses": (enrolment.DEVICES, binding.ADDRESSES, 5, 5),
    "five minutes for a key (Web Authentication, 15.1)": (ceremony.LIFETIME, 300.0),
    "1023 bytes of an id (Web Authentication, 7.1)": (credential.LONGEST_ID, 1023),
    "ES256, EdDSA, RS256": (ALGORITHMS, (-7, -8, -257)),
    "half a minute for a token that is spent": (trusted_devices.GRACE, 30.0),
    "five minutes for a proof before anything changes": (proof.FRESH, settings.Mfa().enrol_within, 300.0, 300.0),
    "a browser is trusted for thirty days": (settings.TrustedDevices().lifetime, 30 * 86_400.0),
    "three recoveries by e-mail in a day, a day to object": (
        *(recovery.A_DAY, settings.Recovery().delay, recovery.APPROVAL),
        *(3, 86_400.0, 86_400.0),
    ),
    "what was interrupted: a megabyte, two large ones each, 32 MiB of all strangers": (
        *(settings.Interrupted().body, interrupted.LARGE, interrupted.STRANGERS),
        *(1_048_576, 2, 32 * 1_048_576),
    ),
    "an hour without use and a day at aal2 (NIST SP 800-63B-4, 2.2.3)": (
        *(settings.SessionTimes().idle, settings.SessionTimes().absolute),
        *(3600.0, 86_400.0),
    ),
    "reminded two weeks before codes end, three days before one must be there": (
        *(reminders.SOON, demands.NOTICE),
        *(14 * 86_400.0, 3 * 86_400.0),
    ),
    "twenty messages of a kind to an address within an hour, forty to a person": (
        *(settings.Notify().per_address, settings.Notify().per_user),
        *(20, 40),
    ),
}
"""What it is for, and where it is from: the numbers we have, then as many that they have to be."""


@pytest.mark.parametrize("what", FIGURES)
def test_a_figure_is_what_it_has_to_be(what: str) -> None:
    numbers = FIGURES[what]
    half = len(numbers) // 2
    assert numbers[:half] == numbers[half:]


def test_nobody_makes_a_proof_last_longer_than_five_minutes() -> None:
    with pytest.raises(ValidationError):
        settings.Mfa.model_validate({"enrol_within": "301s"})
    assert settings.Mfa.model_validate({"enrol_within": "1m"}).enrol_within == 60.0
