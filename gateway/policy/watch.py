"""Tells when the policy files have changed.

By content, not by notification: a ConfigMap swaps a symbolic link, an editor renames, a network file system tells
nobody; what is the same in all of them is that other bytes are read. A change counts once two looks in a row have
seen the same new bytes, so that a file that is still being written is not taken for a policy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from gateway.policy.load import contents, digest

INTERVAL = 0.5
"""Seconds between two looks; a change is acted on within about twice that."""

_log = logging.getLogger(__name__)


class Watch:
    """Looks at `path` and calls `reload` after each change."""

    def __init__(
        self,
        path: Path,
        reload: Callable[[], Awaitable[None]],
        *,
        interval: float = INTERVAL,
        look: Callable[[], str] | None = None,
    ) -> None:
        """`look`: tells the content of what is not a folder of policies."""
        self._path = path
        self._reload = reload
        self._interval = interval
        self._look = look or partial(_look, path)
        self._known = self._seen = self._look()

    def check(self) -> bool:
        """Look once. True when what was new at the last look is still there: the time to reload is now."""
        seen = self._look()
        settled, self._seen = seen == self._seen, seen
        if not settled or seen == self._known:
            return False
        self._known = seen
        return True

    async def run(self) -> None:
        """Look and reload until cancelled. An exception of `reload` is logged, and watching goes on."""
        while True:
            await asyncio.sleep(self._interval)
            if await asyncio.to_thread(self.check):
                try:
                    await self._reload()
                except Exception:
                    _log.exception("reloading %s failed; the last good policy stays", self._path)


def _look(path: Path) -> str:
    try:
        return digest(contents(path))
    except OSError as error:
        return f"away: {error.errno}"
