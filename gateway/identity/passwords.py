"""Passwords: argon2id (RFC 9106), off the event loop.

Parameters are OWASP's first choice for argon2id, 19 MiB, two passes, one lane: about 20 ms of one core. A pool of two
threads bounds memory (two times 19 MiB) and keeps a flood of sign-ins from taking every core; they stand back for the
event loop, so that whoever is signed in does not wait for those who sign in. A queue that is full is told to come back
later. An older hash is replaced at the next successful sign-in.

Strength follows NIST SP 800-63B-4, section 3.1.1: at least 8 characters (a second factor can be asked for), long ones
welcome, no rules about kinds of characters, none of the passwords everybody tries. Comparison is of RFC 8265
OpaqueStrings: what looks the same on two keyboards is the same password, and no case is folded. Nothing is cut off.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import unicodedata
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from gateway.core.errors import StoreAway, UserError
from gateway.core.words import say
from gateway.identity.common import is_common

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MEMORY_KIB = 19456
PASSES = 2
LANES = 1
MIN_LENGTH = 8
MAX_LENGTH = 128
THREADS = 2
NICE = 10
"""How far the threads stand back; Linux knows it of each thread."""
QUEUE = 64
"""How many may wait for a thread: a second and a half at most."""

T = TypeVar("T")


class Passwords:
    """Hashes and compares. `close` ends its threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords", initializer=_stand_back)
        self._waiting = 0
        # Well-formed, with today's parameters, and of no password: comparing with it costs what any other costs.
        salt, tag = (b64encode(secrets.token_bytes(size)).rstrip(b"=").decode() for size in (16, 32))
        self._nobody = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${tag}"

    def demand_room(self) -> None:
        """Raises `UserError` ERR-BUSY where another one would not be looked at."""
        if self._waiting >= QUEUE:
            raise UserError("ERR-BUSY", say("Too many people are signing in at this moment."), 503, retry_after=2.0)

    async def hash(self, password: str) -> str:
        """The password's argon2id hash as a PHC string. Raises `UserError` ERR-BUSY."""
        return await self._off_the_loop(lambda: _hasher().hash(_bytes(password)))

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Whether `password` has this hash. With None the answer is no, after the same work.

        Raises `UserError` ERR-BUSY, `StoreAway` for a hash that is none.
        """
        good = await self._off_the_loop(lambda: _matches(hashed or self._nobody, password))
        return good and hashed is not None

    @staticmethod
    def outdated(hashed: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return _hasher().check_needs_rehash(hashed)

    async def _off_the_loop(self, work: Callable[[], T]) -> T:
        self.demand_room()
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # Counted until the work is done: who gives up waiting does not free the thread.
        future.add_done_callback(self._done)
        return await future

    def _done(self, _future: object) -> None:
        self._waiting -= 1

    def close(self) -> None:
        """Finish what is under way and end the threads."""
        self._threads.shutdown()


def check_strength(password: str, name: str = "") -> None:
    """Raise `UserError` ERR-PASSWORD-WEAK, saying why, for a password that nobody should choose.

    `name` is the canonical user name.
    """
    opaque = _opaque(password)
    if len(opaque) < MIN_LENGTH:
        raise UserError("ERR-PASSWORD-WEAK", say("A password has at least {count} characters.", count=MIN_LENGTH))
    if len(opaque) > MAX_LENGTH:
        raise UserError("ERR-PASSWORD-WEAK", say("A password has at most {count} characters.", count=MAX_LENGTH))
    folded = opaque.casefold()
    own = name.partition("@")[0]
    if name and (folded == name or (len(own) >= 4 and own in folded and len(folded) - len(own) < MIN_LENGTH)):
        raise UserError("ERR-PASSWORD-WEAK", say("The password is too close to the user name."))
    if len(set(folded)) < 4 or is_common(folded):
        raise UserError("ERR-PASSWORD-WEAK", say("This password is among the first that anybody would try."))


def _stand_back() -> None:
    """Have the operating system prefer everybody else to this thread."""
    me = threading.get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, me, min(19, os.getpriority(os.PRIO_PROCESS, me) + NICE))


def _bytes(password: str) -> bytes:
    return _opaque(password).encode("utf-8", "surrogatepass")  # half a character is wrong, not a fault


def _opaque(password: str) -> str:
    """The OpaqueString profile of RFC 8265, section 4.2, as far as it changes text."""
    spaced = "".join(" " if unicodedata.category(character) == "Zs" else character for character in password)
    return unicodedata.normalize("NFC", spaced)


def _matches(hashed: str, password: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

    try:
        return _hasher().verify(hashed, _bytes(password))
    except VerifyMismatchError:
        return False
    except (InvalidHashError, VerificationError) as error:
        raise StoreAway("a stored password hash is damaged") from error


def _hasher() -> PasswordHasher:
    """Made when first needed: a gateway that only checks sessions does not load argon2."""
    global _made
    if _made is None:
        from argon2 import PasswordHasher

        _made = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
    return _made


_made: PasswordHasher | None = None
