"""What the other end said before it was gone, where a write was the first to notice.

Who answers early and hangs up, with bytes of ours unread, resets the connection (RFC 9112, section 9.6). A transport
whose write fails gives up there and then; what came before the reset is still in the kernel, and can be read until the
socket is closed, which is right after the protocol was told of its end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

_AT_ONCE = 262_144


def unread(transport: asyncio.BaseTransport) -> Iterator[bytes]:
    """What nobody has read yet, for who is just told that the connection is lost. Nothing over TLS, where these bytes
    are not what was said; never raises.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_extra_info("ssl_object") is not None:
        return
    try:
        while data := os.read(sock.fileno(), _AT_ONCE):
            yield data
    except OSError:  # there is no more, or the reset itself
        return
