"""How often somebody may try to sign in.

Tries are counted by account and by address. The first few are free; after them each one has to wait, twice as long as
the one before, up to a quarter of an hour. There is no lock-out: whoever waits may try again.

- A try is counted before it is checked, in one atomic step, so a hundred guesses in one instant are a hundred tries.
- Refused tries neither count nor make the wait longer: hammering gains nothing and costs the owner nothing.
- A browser that signed in as this account before has a counter of its own and does not share its address's: a stranger,
  even behind the same router, can make the others wait, but never the owner at home.
- A wait is a key that lives as long, so it is measured by one clock, the store's, however many gateways ask it.
- Success gives the account its free tries back, but the address only the one that succeeded: somebody with an account
  of their own could otherwise sign in now and then, and go on guessing at others for ever.

About 110 guesses a day at one account remain possible. That is more than the 100 in a row after which NIST SP
800-63B-4, section 3.2.2, wants an authenticator disabled; for a password that would let any stranger lock anybody out.
"""

from __future__ import annotations

from hashlib import sha256

from gateway.core.contracts import KeyValue, key
from gateway.core.identity import DEFAULT_TENANT

FREE_FOR_ACCOUNT = 5
FREE_FOR_ADDRESS = 8
LONGEST_WAIT = 900.0
REMEMBER = 86400.0
"""Seconds after the first try of a series when it is forgotten."""


class SignInThrottle:
    """Counts tries in a `KeyValue`."""

    def __init__(self, kv: KeyValue) -> None:
        self._kv = kv

    async def admit(
        self, account: str, address_network: str, known_device: bool, *, tenant: str = DEFAULT_TENANT
    ) -> float:
        """Count a try at `account` (canonical name) from `address_network` and say how long to wait; 0.0: go on.

        Call it before looking at the password, and `succeeded` when that was right. The wait is in seconds.
        Raises `StoreAway`: a gateway that cannot count lets nobody guess.
        """
        counters = _counters(tenant, account, address_network, known_device)
        for counter, _ in counters:
            if left := await self._kv.left(f"{counter}/wait"):
                return min(LONGEST_WAIT, max(1.0, left))
        for number, (counter, free) in enumerate(counters):
            tries = await self._kv.add(counter, 1, REMEMBER)
            wait = _wait(tries, free)
            if wait and await self._kv.add(f"{counter}/wait", 1, wait) > 1:  # somebody else has the one try there is
                for counted, _ in counters[: number + 1]:
                    await self._kv.add(counted, -1, REMEMBER)
                return wait
        return 0.0

    async def succeeded(
        self, account: str, address_network: str, known_device: bool, *, tenant: str = DEFAULT_TENANT
    ) -> None:
        """Say that the try admitted last was right."""
        (own, _), *others = _counters(tenant, account, address_network, known_device)
        await self._kv.drop(own)
        await self._kv.drop(f"{own}/wait")
        for counter, free in others:
            if await self._kv.add(counter, -1, REMEMBER) <= free:
                await self._kv.drop(f"{counter}/wait")

    async def withdrawn(
        self, account: str, address_network: str, known_device: bool, *, tenant: str = DEFAULT_TENANT
    ) -> None:
        """Say that the try admitted last was not looked at, so that it is none."""
        for counter, free in _counters(tenant, account, address_network, known_device):
            if await self._kv.add(counter, -1, REMEMBER) >= free:
                await self._kv.drop(f"{counter}/wait")


def _wait(tries: int, free: int) -> float:
    return min(LONGEST_WAIT, 2.0 ** min(tries - free, 20)) if tries > free else 0.0


def _counters(tenant: str, account: str, network: str, known_device: bool) -> list[tuple[str, int]]:
    # Digests: people type all sorts of things where their name belongs, their password among them.
    name = sha256(account.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    if known_device:
        return [(key(tenant, "sign-in", "known", name), FREE_FOR_ACCOUNT)]
    return [
        (key(tenant, "sign-in", "account", name), FREE_FOR_ACCOUNT),
        (key(tenant, "sign-in", "address", network), FREE_FOR_ADDRESS),
    ]
