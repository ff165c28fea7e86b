from __future__ import annotations

import base64
import hmac

import pytest

from gateway.core.clock import ManualClock
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.crypto.mac import Mac
from gateway.crypto.masters import derive, framed
from gateway.identity.device import LIFETIME, DeviceCookie, KnownBrowser


@pytest.fixture
def device(clock: ManualClock) -> DeviceCookie:
    return DeviceCookie(Mac([bytes(32)]), clock)


def test_it_knows_its_own_for_a_year(device: DeviceCookie, clock: ManualClock) -> None:
    value = device.make("ann")
    assert device.is_known(value, "ann")
    assert not device.is_known(value, "bob")
    clock.advance(LIFETIME - 1)
    assert device.is_known(value, "ann")
    clock.advance(1)
    assert not device.is_known(value, "ann")


def test_it_names_nobody_and_travels_in_a_cookie(device: DeviceCookie) -> None:
    value = device.make("annabelle")
    assert "annabelle" not in value
    assert set(value) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


@pytest.mark.parametrize("value", ["", ".", "1.x", "9" * 12 + "." + "A" * 43, "x" * 8192, "é.é", "\ud800"])
def test_what_it_did_not_make(device: DeviceCookie, value: str) -> None:
    assert not device.is_known(value, "ann")


def test_its_end_cannot_be_moved(device: DeviceCookie, clock: ManualClock) -> None:
    end, _, token = device.make("ann").partition(".")
    clock.advance(LIFETIME)
    assert not device.is_known(f"{int(end) + LIFETIME}.{token}", "ann")


def test_nobody_is_known_without_a_name(device: DeviceCookie) -> None:
    assert not device.is_known(device.make(""), "")


def test_a_request_comes_from_a_known_browser_only_with_its_users_cookie_once(device: DeviceCookie) -> None:
    known = KnownBrowser(device, "sallyport-device")
    ann, bob = Identity("default", "s-ann", "ann"), Identity("default", "s-bob", "bob")
    crumb = b"sallyport-device=" + device.make("ann").encode()

    def asked(cookie: bytes) -> Facts:
        return Facts(method="GET", host="h", path="/", cookie=cookie)

    for _ in range(2):
        assert known(asked(b"a=b; " + crumb), ann)
        assert not known(asked(crumb), bob)
        assert not known(asked(crumb), None)
        assert not known(asked(crumb + b"; " + crumb), ann)
        assert not known(asked(b"x-" + crumb), ann)
        assert not known(asked(b""), ann)


def test_cookies_from_before_tokens_named_their_key_are_known(device: DeviceCookie, clock: ManualClock) -> None:
    end = str(int(clock.now()) + LIFETIME)
    message = framed("ann", end)
    made = hmac.digest(derive(bytes(32), "mac\0device"), message, "sha256")
    token = base64.urlsafe_b64encode(made).rstrip(b"=").decode()
    assert device.is_known(f"{end}.{token}", "ann")
    assert not device.is_known(f"{end}.{token}", "bob")
