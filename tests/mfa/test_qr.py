from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

from gateway.mfa import otp
from gateway.mfa.qr import svg


def test_a_qr_code_is_one_svg_without_script_or_style() -> None:
    drawn = svg(otp.otpauth(otp.new_secret(), "Acme & <Söhne>", "ann"))
    root = ElementTree.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "viewBox" in root.attrib
    for forbidden in ("<script", "style=", "<style", "href", "Acme"):
        assert forbidden not in drawn


def test_two_uris_are_two_pictures() -> None:
    assert svg("otpauth://totp/a?secret=AAAA") != svg("otpauth://totp/a?secret=BBBB")


def test_nothing_of_the_room_loads_pyotp_or_segno_before_it_is_used() -> None:
    code = (
        "import sys, gateway.mfa.stepup, gateway.mfa.enrolment, gateway.mfa.qr, gateway.mfa.interrupted;"
        "print(sorted({'pyotp', 'segno'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"
