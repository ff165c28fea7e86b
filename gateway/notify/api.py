"""One POST to a provider's API, and what its answer says about a message.

- Every message has a connection of its own: one that was kept, and closed at the other end, could not be told from one
  that was cut over a message.
- No redirects, cookies or proxies of the environment; at most `LARGEST` of an answer is read.
- Once the connection stands, and no answer comes, nobody knows whether the message was taken over: `unsure`. The same
  goes for a gateway of theirs that lost whom it asked (502, 504). Before, it was not.
- What is about us (no credit, wrong password, not allowed) is not final: another sender may be better off, and an
  operator can mend it. What is about the message is.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import orjson

from gateway.core.errors import ConfigError, Undelivered

LARGEST: Final = 64 * 1024
"""Bytes of an answer that are read."""
LONGEST: Final = 3600.0
"""Seconds that `Retry-After` may ask for."""
CONNECT: Final = 5.0
"""Seconds for a connection."""
ABOUT_THE_MESSAGE: Final = frozenset({400, 410, 413, 414, 415, 422, 451})
UNSURE: Final = frozenset({502, 504})


class Answer(NamedTuple):
    """What they said."""

    status: int
    retry_after: float
    """Seconds; 0.0 where they did not say."""
    body: bytes
    """Empty where it did not come whole."""
    headers: Mapping[str, str]

    @property
    def yes(self) -> bool:
        """Whether they took it over."""
        return 200 <= self.status < 300

    @property
    def said(self) -> Mapping[str, Any]:
        """The JSON object in it; empty where there is none."""
        try:
            found = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return found if isinstance(found, dict) else {}

    def refusal(self, code: str = "", *, final: bool | None = None) -> Undelivered:
        """Why a message was not taken over; `code`: a word or number of theirs, which holds nothing of the message."""
        return Undelivered(
            f"answered {self.status}{' ' + code if code else ''}",
            final=self.status in ABOUT_THE_MESSAGE if final is None else final,
            unsure=self.status in UNSURE,
            retry_after=self.retry_after,
        )


class Api:
    """Where messages are posted to. Raises `ConfigError` for authorities that cannot be read."""

    def __init__(self, url: str, *, timeout: float = 10.0, ca: Path | None = None) -> None:
        """`timeout`: seconds in all for one message."""
        self.url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout, connect=min(CONNECT, timeout / 2))
        try:
            self._tls = ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{ca}: no authorities can be read from it: {error}") from error
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._client: aiohttp.ClientSession | None = None

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """What they answer. Raises `Undelivered` where they do not."""
        if self._client is None:
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, ssl=self._tls),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                auto_decompress=False,
            )
        try:
            async with self._client.post(self.url, data=body, headers=headers, allow_redirects=False) as answer:
                after = answer.headers.get("Retry-After", "")
                wait = min(float(after), LONGEST) if after.isascii() and after.isdigit() else 0.0
                return Answer(answer.status, wait, await _read(answer), answer.headers)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Undelivered(type(error).__name__) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Undelivered(type(error).__name__, unsure=True) from None

    async def close(self) -> None:
        """Let go of it."""
        if self._client is not None:
            await self._client.close()
            self._client = None


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """The body, where it comes whole and is not too large: what it says is worth less than the status before it."""
    found = bytearray()
    try:
        async for piece in answer.content.iter_any():
            found += piece
            if len(found) > LARGEST:
                return b""
    except (aiohttp.ClientError, OSError, TimeoutError):
        return b""
    return bytes(found)
