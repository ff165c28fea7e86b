"""A PostgreSQL that says what it is told to, to the driver, without a network; and somebody who asks it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import asyncpg
from asyncpg import connect_utils
from asyncpg.exceptions import InternalClientError

from gateway.store.postgresql import Connection
from gateway.store.postgresql_frames import Protocol

TURNS = 4
"""Of the loop, until everything that was said is understood."""
PUT_UP_WITH = (asyncpg.PostgresError, asyncpg.InterfaceError, InternalClientError, OSError, UnicodeError)
"""What whoever asks is told; `UnicodeError` of what they ask for."""
NONCE = 32
"""Octets of what the driver makes up for SCRAM."""
_NONCE = re.compile(rb"r=([^,]+)$")


class Wire(asyncio.Transport):
    """A connection whose other end is nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.gone = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def writelines(self, many: Any) -> None:
        self.written.extend(map(bytes, many))

    def is_closing(self) -> bool:
        return self.gone

    def close(self) -> None:
        self.gone = True

    def abort(self) -> None:
        self.gone = True

    @property
    def nonce(self) -> bytes:
        """Of SCRAM, as it was sent."""
        found = [made[1] for one in self.written if (made := _NONCE.search(one))]
        return found[0] if found else b""


class Talk:
    """A connection of the driver's, and somebody who asks on it again and again."""

    def __init__(self, of: type[Any] = Protocol) -> None:
        """`of`: the driver's own, to see what becomes of it."""
        self._connection = Connection if of is Protocol else asyncpg.Connection
        loop = asyncio.get_running_loop()
        self.wire = Wire()
        self.let_in: asyncio.Future[bool] = loop.create_future()
        at, self._params, self._config = connect_utils._parse_connect_arguments(
            **dict.fromkeys(_LEFT), **_SETTLED, host="db", port=5432, user="u", password="p", database="d", ssl=False
        )
        self._at = at[0]
        self.protocol = of(self._at, self.let_in, self._params, asyncpg.Record, loop)
        self.protocol.connection_made(self.wire)
        self.told: list[BaseException] = []
        """What whoever asked was told instead of an answer."""
        self.got: list[Any] = []
        self.asking = asyncio.ensure_future(self._ask())

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self.let_in
            one = self._connection(self.protocol, self.wire, loop, self._at, self._config, self._params)
        except Exception as error:  # of a greeting, the driver says whatever it stumbled over
            self.told.append(error)
            return
        self.protocol.set_connection(one)
        settings = self.protocol.get_settings()
        settings.add_python_codec(114, "json", "pg_catalog", [], "scalar", str.encode, bytes, "binary")

        async def read() -> Any:
            return await (await one.prepare("SELECT it")).fetch()

        async def write() -> None:
            await one.executemany("INSERT it", [("t", "s", "{}", 1.5)] * 2)

        while not one.is_closed():
            for ask in (read, lambda: one.execute("BEGIN"), write):  # as SQLAlchemy does
                try:
                    self.got.append(await ask())
                except PUT_UP_WITH as error:
                    self.told.append(error)

    async def say(self, *pieces: bytes) -> None:
        """The server does, piece by piece."""
        for piece in pieces:
            await self._settle()
            if not self.wire.gone and piece:
                self.protocol.data_received(piece.replace(b"NONCE", self.wire.nonce))
        await self._settle()

    async def end(self) -> None:
        """Nobody is left."""
        self.protocol.connection_lost(None)
        await self._settle()
        self.asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.asking
        if not self.let_in.done():
            self.let_in.cancel()

    async def _settle(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)


_LEFT = (
    "dsn passfile command_timeout direct_tls server_settings target_session_attrs krbsrvname gsslib service servicefile"
).split()
_SETTLED = dict.fromkeys(("statement_cache_size", "max_cached_statement_lifetime", "max_cacheable_statement_size"), 0)
