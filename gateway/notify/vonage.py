"""SMS by Vonage: the Messages API, `POST /v1/messages` (https://developer.vonage.com/en/api/messages).

202 is a yes, and the `message_uuid` in it what they will call the message. 402 (no credit) and 401 are about us, 422 is
about the message. They ask that no message is given less than half an hour to arrive, so a code may come too late.
"""

from __future__ import annotations

import base64
import math
from typing import Final

import orjson

from gateway.core.message import Message, Receipt
from gateway.notify.api import Api

URL: Final = "https://api.nexmo.com"
LEAST: Final = 1800
"""Seconds that a message has to be given."""


class VonageSender:
    """A `Sender` of SMS."""

    name = "vonage"

    def __init__(
        self, key: str, secret: str, *, sender: str, callback: str = "", url: str = URL, timeout: float = 10.0
    ) -> None:
        """`key` and `secret` are those of the API. `sender`: a number or a name. `callback`: where they tell what
        became of it; empty: where their account says.
        """
        self._api = Api(f"{url.rstrip('/')}/v1/messages", timeout=timeout)
        self._who = "Basic " + base64.b64encode(f"{key}:{secret}".encode()).decode()
        self._sender = sender.removeprefix("+")
        self._callback = {"webhook_url": callback, "webhook_version": "v1"} if callback else {}

    async def send(self, message: Message) -> Receipt:
        """As the contract says."""
        body: dict[str, object] = {
            "message_type": "text",
            "channel": "sms",
            "to": message.to.removeprefix("+"),
            "from": self._sender,
            "text": message.text,
            "client_ref": message.id,
            **self._callback,
        }
        if message.useful:
            body["ttl"] = max(LEAST, math.ceil(message.useful))
        headers = {"Authorization": self._who, "Content-Type": "application/json", "Accept": "application/json"}
        answer = await self._api.post(orjson.dumps(body), headers)
        if answer.yes:
            return Receipt(str(answer.said.get("message_uuid", "")))
        raise answer.refusal()

    async def close(self) -> None:
        """Let go of connections."""
        await self._api.close()
