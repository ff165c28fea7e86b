"""Any carrier behind a URL: one POST of JSON for each message, signed as Standard Webhooks 1.0 says.

    webhook-id         the message's, the same at each try: whoever has seen it answers 2xx and does nothing
    webhook-timestamp  seconds since the epoch
    webhook-signature  v1,base64(HMAC-SHA-256(secret, id.timestamp.body))

2xx is yes. 408, 425, 429 and 5xx are "not now" (`Retry-After` in seconds is obeyed), everything else is no; redirects
are not followed.
"""

from __future__ import annotations

import base64
import hmac
import ssl
from pathlib import Path

import aiohttp
import orjson

from gateway.core.clock import Clock
from gateway.core.errors import ConfigError, Undelivered
from gateway.core.message import Message, Receipt

NOT_NOW = frozenset({408, 425, 429})
LONGEST = 3600.0
"""Seconds that `Retry-After` may ask for."""


class WebhookSender:
    """A `Sender` to `url`. Raises `ConfigError` for authorities that cannot be read."""

    def __init__(
        self, url: str, secret: bytes, clock: Clock, *, channel: str, ca: Path | None = None, timeout: float = 10.0
    ) -> None:
        """`timeout`: seconds in all for one message."""
        self.name = "webhook" if channel == "email" else f"{channel}-webhook"
        self._url = url
        self._secret = secret
        self._clock = clock
        self._channel = channel
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        try:
            self._tls = ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{ca}: no authorities can be read from it: {error}") from error
        self._client: aiohttp.ClientSession | None = None

    async def send(self, message: Message) -> Receipt:
        """As the contract says."""
        body = orjson.dumps(
            {
                "id": message.id,
                "channel": self._channel,
                "kind": message.kind,
                "to": message.to,
                "subject": message.subject,
                "text": message.text,
                "html": message.html,
            }
        )
        headers = {"Content-Type": "application/json", **signed(self._secret, message.id, self._clock.now(), body)}
        if self._client is None:
            self._client = aiohttp.ClientSession(timeout=self._timeout, auto_decompress=False)
        try:
            async with self._client.post(
                self._url, data=body, headers=headers, ssl=self._tls, allow_redirects=False
            ) as answer:
                status, after = answer.status, answer.headers.get("Retry-After", "")
        except aiohttp.ClientConnectorError as error:
            raise Undelivered(type(error).__name__) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Undelivered(type(error).__name__, unsure=True) from None
        if 200 <= status < 300:
            return Receipt(str(status))
        wait = min(float(after), LONGEST) if after.isascii() and after.isdigit() else 0.0
        raise Undelivered(f"answered {status}", final=status < 500 and status not in NOT_NOW, retry_after=wait)

    async def close(self) -> None:
        """Close what is kept open."""
        if self._client is not None:
            await self._client.close()
            self._client = None


def signed(secret: bytes, token: str, now: float, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks for `body`."""
    at = str(int(now))
    mac = hmac.digest(secret, b".".join((token.encode(), at.encode(), body)), "sha256")
    return {
        "webhook-id": token,
        "webhook-timestamp": at,
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }
