"""Passwords: argon2id (RFC 9106), off the event loop.

Parameters are OWASP's first choice for argon2id, 19 MiB, two passes, one lane: about 10 ms of one core with libsodium,
which takes the widest registers that the processor has, and 20 where it has no wide ones. A pool of two threads bounds
memory (two times 19 MiB) and keeps a flood of sign-ins from taking every core; they stand back for the event loop, so
that whoever is signed in does not wait for those who sign in. A queue that is full is told to come back later.

A hash is kept as a PHC string. An older one is replaced at the next successful sign-in.

Strength follows NIST SP 800-63B-4, section 3.1.1: at least 8 characters (a second factor can be asked for), long ones
welcome, no rules about kinds of characters, none of the passwords everybody tries. Comparison is of RFC 8265
OpaqueStrings: what looks the same on two keyboards is the same password, and no case is folded. Nothing is cut off.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import threading
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hmac import compare_digest
from typing import TypeVar

from gateway.core.errors import StoreAway, UserError
from gateway.core.words import say
from gateway.identity.common import is_common

MEMORY_KIB = 19456
PASSES = 2
SALT, TAG = 16, 32
"""Bytes."""
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
        self._nobody = _written(secrets.token_bytes(SALT), secrets.token_bytes(TAG))

    def demand_room(self) -> None:
        """Raises `UserError` ERR-BUSY where another one would not be looked at."""
        if self._waiting >= QUEUE:
            raise UserError("ERR-BUSY", say("Too many people are signing in at this moment."), 503, retry_after=2.0)

    async def hash(self, password: str) -> str:
        """The password's argon2id hash as a PHC string. Raises `UserError` ERR-BUSY."""
        return await self._off_the_loop(lambda: _hash(password))

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Whether `password` has this hash. With None the answer is no, after the same work.

        Raises `UserError` ERR-BUSY, `StoreAway` for a hash that is none of ours.
        """
        good = await self._off_the_loop(lambda: _matches(hashed or self._nobody, password))
        return good and hashed is not None

    @staticmethod
    def outdated(hashed: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return not hashed.startswith(_parameters())

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


def _hash(password: str) -> str:
    salt = secrets.token_bytes(SALT)
    return _written(salt, _argon2id(_bytes(password), salt, MEMORY_KIB, PASSES))


def _matches(hashed: str, password: str) -> bool:
    if (read := _PHC(hashed)) is None:
        raise StoreAway("a stored password hash is damaged")
    memory, passes, salt, tag = read.groups()
    made = _argon2id(_bytes(password), b64decode(salt + "=="), int(memory), int(passes))
    return compare_digest(made, b64decode(tag + "="))


def _argon2id(password: bytes, salt: bytes, memory: int, passes: int) -> bytes:
    """The tag. Raises `StoreAway` where there is no memory for it, or no such parameters."""
    from nacl.exceptions import CryptoError  # a gateway that only checks sessions does not load it
    from nacl.pwhash import argon2id

    try:
        return argon2id.kdf(TAG, password, salt, opslimit=passes, memlimit=memory * 1024)
    except CryptoError as error:
        raise StoreAway(f"argon2id with {memory} KiB and {passes} passes cannot be computed") from error


def _parameters() -> str:
    return f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p=1$"


def _written(salt: bytes, tag: bytes) -> str:
    return _parameters() + "$".join(b64encode(each).rstrip(b"=").decode() for each in (salt, tag))


_PHC = re.compile(
    r"\$argon2id\$v=19\$m=([1-9][0-9]{0,6}),t=([1-9][0-9]{0,3}),p=1\$([A-Za-z0-9+/]{22})\$([A-Za-z0-9+/]{43})"
).fullmatch
