"""Trusted browsers, which are in the records, and the sessions opened with them, wherever those are kept."""

from __future__ import annotations

import pytest

from gateway.core.clock import ManualClock
from gateway.core.identity import TRUSTED_DEVICE, Identity, Level, Proof
from gateway.identity.local import LocalUsers
from gateway.identity.sessions import Sessions
from gateway.identity.users import User
from gateway.mfa.trusted_devices import GONE, GRACE, TrustedDevices
from gateway.store.sql import Records
from tests.identity.conftest import over
from tests.rig.ledger import Remembered
from tests.rig.sessions import Stores

pytestmark = over("sqlite", "redis")


class House:
    """One process: sessions, and the browsers that people trust."""

    def __init__(self, sessions: Sessions, records: Records, clock: ManualClock) -> None:
        self.sessions = sessions
        self.clock = clock
        self.devices = TrustedDevices(records, clock, Remembered(), sessions.end_in)

    async def sign_in(self, user: User, cookie: str = "", browser: str = "b-1") -> tuple[str, Identity, str]:
        """With the password, and with a trusted browser where there is one; the session, and the cookie now."""
        proof = Proof("password", self.clock.now())
        token, identity = await self.sessions.open(user, proof, address="192.0.2.1", agent="test")
        if not cookie:
            return token, identity, ""
        used = await self.devices.use(identity, cookie, browser)
        if used.proof is not None:
            token, identity = await self.sessions.prove(token, used.proof)
        return token, identity, used.cookie or ""

    async def trust(self, user: User) -> str:
        _, identity, _ = await self.sign_in(user)
        generation = await self.devices.generation(user.tenant, user.subject)
        cookie = await self.devices.trust(identity, generation)
        assert cookie
        return cookie


@pytest.fixture
async def house(sessions: Sessions, records: Records, clock: ManualClock) -> House:
    return House(sessions, records, clock)


@pytest.fixture
async def replica(stores: Stores, records: Records, clock: ManualClock) -> House:
    return House(await stores.replica(), records, clock)


def stands_in(identity: Identity | None) -> bool:
    assert identity is not None
    assert identity.session is not None
    return TRUSTED_DEVICE in [proof.factor for proof in identity.session.proofs]


async def test_it_stands_in_and_every_process_sees_it(house: House, replica: House, bob: User) -> None:
    cookie = await house.trust(bob)
    token, identity, cookie = await replica.sign_in(bob, cookie)
    assert stands_in(identity)
    assert identity.level is Level.AAL1
    assert stands_in(await house.sessions.find(token))
    _, again, _ = await house.sign_in(bob, cookie)
    assert stands_in(again), "the next token counts in another process"


async def test_forgotten_in_one_process_its_sessions_are_over_in_all(house: House, replica: House, bob: User) -> None:
    cookie = await house.trust(bob)
    opened, _, cookie = await house.sign_in(bob, cookie)
    other, me, _ = await replica.sign_in(bob)
    assert await replica.devices.revoke(me) == 1
    assert await replica.sessions.find(opened) is None
    await house.sessions.refresh()
    assert await house.sessions.find(opened) is None
    assert await replica.sessions.find(other) is not None, "a session it did not open stays"
    assert not stands_in((await house.sign_in(bob, cookie))[1])


async def test_a_copy_ends_what_was_opened_with_it(house: House, replica: House, bob: User, clock: ManualClock) -> None:
    cookie = await house.trust(bob)
    owner, _, _ = await house.sign_in(bob, cookie)
    clock.advance(GRACE + 1)
    thief, identity, _ = await replica.sign_in(bob, cookie, browser="b-2")
    assert not stands_in(identity)
    assert await replica.sessions.find(owner) is None
    assert await replica.sessions.find(thief) is not None, "who came second knew the password: aal1, and an alarm"


@pytest.mark.parametrize("how", ["everything ended", "another password", "disabled"])
async def test_what_ends_everything_ends_the_trust_too(
    house: House, replica: House, bob: User, people: LocalUsers, how: str
) -> None:
    cookie = await house.trust(bob)
    token, identity, cookie = await house.sign_in(bob, cookie)
    if how == "everything ended":
        await replica.sessions.end_all(bob.tenant, bob.subject)
    elif how == "another password":
        await people.set_password("bob", "another correct horse battery")
    else:
        await people.disable("bob")
    await house.sessions.refresh()
    assert await house.sessions.find(token) is None
    assert await replica.devices.use(identity, cookie, "b-1") == GONE
