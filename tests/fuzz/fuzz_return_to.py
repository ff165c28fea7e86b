"""Where people may be sent: whatever passes stays on this origin, also for readers that are not ours."""

from __future__ import annotations

import re
from urllib.parse import unquote, urljoin, urlsplit

from gateway.web.return_to import is_safe

ORIGIN = "https://good.test"


def one(data: bytes) -> None:
    value = data.decode("utf-8", "replace")
    if not is_safe(value):
        return
    assert value.isascii()
    assert " " not in value
    for reading in (value, unquote(value.partition("?")[0]), unquote(unquote(value.partition("?")[0]))):
        # The URL standard takes a backslash for a slash and steps over tabs and line ends.
        seen = "".join(sign for sign in reading.replace("\\", "/") if sign not in "\t\r\n")
        assert re.fullmatch("/(?!/).*", seen, re.DOTALL), value
        assert urlsplit(urljoin(ORIGIN + "/deep/page", seen)).netloc == "good.test", value
