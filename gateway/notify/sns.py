"""SMS by Amazon SNS: `Publish` to a phone number (https://docs.aws.amazon.com/sns/latest/api/API_Publish.html).

Signed with SigV4. The `MessageId` of the answer is what they will call the message. They say "too often" with 400 as
well, by a word in the XML; the words that are about us, not the message, come with 403.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlencode

from gateway.core.clock import Clock
from gateway.core.message import Message, Receipt
from gateway.notify.api import Api
from gateway.notify.sigv4 import Keys, signed

NOT_NOW: Final = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestLimitExceeded",
        "KMSThrottling",
    }
)
_ID: Final = re.compile(rb"<MessageId>([A-Za-z0-9-]{1,100})</MessageId>")
_CODE: Final = re.compile(rb"<Code>([A-Za-z.]{1,64})</Code>")


class SnsSender:
    """A `Sender` of SMS."""

    name = "sns"

    def __init__(self, keys: Keys, clock: Clock, *, sender: str = "", url: str = "", timeout: float = 10.0) -> None:
        """`sender`: a number of ours there, or a name; empty: theirs. `url`: another endpoint than the region's."""
        self._keys = keys
        self._clock = clock
        self._api = Api(url or f"https://sns.{keys.region}.amazonaws.com/", timeout=timeout)
        self._attributes = {"AWS.SNS.SMS.SMSType": "Transactional"}
        if sender:
            number = sender.startswith("+")
            self._attributes["AWS.MM.SMS.OriginationNumber" if number else "AWS.SNS.SMS.SenderID"] = sender

    async def send(self, message: Message) -> Receipt:
        """As the contract says."""
        form = {"Action": "Publish", "Version": "2010-03-31", "PhoneNumber": message.to, "Message": message.text}
        for number, (name, value) in enumerate(self._attributes.items(), 1):
            entry = f"MessageAttributes.entry.{number}"
            form |= {f"{entry}.Name": name, f"{entry}.Value.DataType": "String", f"{entry}.Value.StringValue": value}
        body = urlencode(form).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        keys = await self._keys.current()
        answer = await self._api.post(body, signed(keys, "POST", self._api.url, headers, body, self._clock.now()))
        if answer.yes:
            found = _ID.search(answer.body)
            return Receipt(found[1].decode() if found else "")
        said = _CODE.search(answer.body)
        code = said[1].decode() if said else ""
        raise answer.refusal(code, final=False if code in NOT_NOW else None)

    async def close(self) -> None:
        """Let go of connections."""
        await self._api.close()
