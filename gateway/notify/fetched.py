"""What is at an address of Amazon's: a small answer, whole, or none.

No redirect is followed, no proxy asked and no cookie kept: whoever answers leads us nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import aiohttp

LARGEST: Final = 64 * 1024
"""Bytes."""
TIMEOUT: Final = 5.0
"""Seconds for all of it."""


class Unanswered(OSError):  # noqa: N818 - it says what came
    """Nothing that could be used came; `str()` says why, without a word of an answer or of the address."""


async def fetched(
    url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> bytes:
    """What is answered with 200. Raises `Unanswered`."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT, connect=TIMEOUT / 2)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as client,
            client.request(method, url, headers=headers, data=body, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise Unanswered(f"answered {answer.status}")
            found = bytearray()
            async for piece in answer.content.iter_any():
                found += piece
                if len(found) > LARGEST:
                    raise Unanswered("too much was answered")
            return bytes(found)
    except Unanswered:
        raise
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Unanswered(type(error).__name__) from None
