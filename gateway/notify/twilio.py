"""SMS by Twilio: Programmable Messaging, `POST …/Messages.json` (https://www.twilio.com/docs/messaging/api).

201 is a yes, and the `sid` in it what they will call the message. They ask not to be asked about error codes, which
change; so only the status decides, but for a recipient who has said STOP to this sender, which no other try will mend.
It has no key against doing a thing twice: what may have been taken over can come twice, with the same code in it.
"""

from __future__ import annotations

import base64
import math
from typing import Final
from urllib.parse import quote, urlencode

from gateway.core.message import Message, Receipt
from gateway.notify.api import Api

URL: Final = "https://api.twilio.com"
OPTED_OUT: Final = 21610
LONGEST: Final = 36_000
"""Seconds that a message may be kept by them."""


class TwilioSender:
    """A `Sender` of SMS."""

    name = "twilio"

    def __init__(
        self, account: str, token: str, *, sender: str, callback: str = "", url: str = URL, timeout: float = 10.0
    ) -> None:
        """`account` is its SID, `token` its auth token. `sender`: a number, a name, or the SID of a messaging service.
        `callback`: where they tell what became of it; empty: nowhere.
        """
        self._api = Api(
            f"{url.rstrip('/')}/2010-04-01/Accounts/{quote(account, safe='')}/Messages.json", timeout=timeout
        )
        self._who = "Basic " + base64.b64encode(f"{account}:{token}".encode()).decode()
        self._sender = {"MessagingServiceSid" if sender.startswith("MG") and len(sender) == 34 else "From": sender}
        self._callback = {"StatusCallback": callback} if callback else {}

    async def send(self, message: Message) -> Receipt:
        """As the contract says."""
        form = {"To": message.to, "Body": message.text, **self._sender, **self._callback}
        if message.useful:
            form["ValidityPeriod"] = str(min(LONGEST, max(1, math.ceil(message.useful))))
        headers = {"Authorization": self._who, "Content-Type": "application/x-www-form-urlencoded"}
        answer = await self._api.post(urlencode(form).encode(), headers)
        if answer.yes:
            return Receipt(str(answer.said.get("sid", "")))
        code = answer.said.get("code")
        known = code if isinstance(code, int) else 0
        raise answer.refusal(str(known) if known else "", final=True if known == OPTED_OUT else None)

    async def close(self) -> None:
        """Let go of connections."""
        await self._api.close()
