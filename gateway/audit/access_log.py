"""The access log: one line of JSON for each request.

`write` only encodes and appends; `flush` hands the batch to a thread of its own, so neither a slow disk nor a reader
that has stopped reading ever holds up a request. When more than `BACKLOG` bytes wait for them, lines are dropped and
counted (`dropped`): a log that nobody reads must not become the gateway's memory.

The query of a target is not logged, for codes and tokens travel there; nor is any header but the agent.

Every text passes `visible` and a JSON encoder, so whatever a client sends, a request is one line and one object.

A file is opened anew when the one at its path is no longer the one that was opened: move it away to rotate it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import orjson

from gateway.audit.visible import visible
from gateway.core.errors import ConfigError
from gateway.core.identity import Identity

BATCH: Final = 512 * 1024
"""Bytes after which a batch is handed on without waiting for `flush`."""
BACKLOG: Final = 16 * 1024 * 1024
"""Bytes that may wait to be written."""
KNOWN: Final = 4096
"""Combinations of texts that are remembered: who asked what of whom is the same again and again."""
LONGEST: Final = 1024
"""Characters of the longest combination worth remembering."""
TEXTS: Final = (
    "method",
    "host",
    "path",
    "address",
    "agent",
    "user",
    "session",
    "rule",
    "answer",
    "reason",
    "upstream",
)

_MILLISECONDS: Final = tuple(f"{number:03d}Z" for number in range(1000))

log = logging.getLogger("sallyport.access_log")


class AccessLog:
    """The access log of one process, to `target`: a file, `-` for standard output, or empty for nowhere.

    Raises `ConfigError` for a file that cannot be opened.
    """

    def __init__(self, target: str = "-") -> None:
        self._file = _File(None if target == "-" else Path(target)) if target else None
        self._batch = bytearray()  # one block that grows: a list of lines costs twice the time in malloc
        self._known: dict[tuple[str, ...], str] = {}
        self._second = -1
        self._stamp = ""

    @property
    def dropped(self) -> int:
        """Lines that could not be written."""
        return self._file.dropped if self._file is not None else 0

    def write(
        self,
        at: float,
        method: str,
        host: str,
        path: str,
        status: int,
        address: str,
        agent: str,
        request_id: str,
        received: int,
        sent: int,
        seconds: float,
        rule: str = "",
        answer: str = "",
        reason: str = "",
        risk: float = 0.0,
        identity: Identity | None = None,
        upstream: str = "",
        upstream_seconds: float = 0.0,
        shadow: tuple[str, str] | None = None,
        forward_auth: str = "",
    ) -> None:
        """Append the line of one request.

        `at` is when it began, in seconds since the epoch; `received` are bytes of body, `sent` of the whole answer;
        `seconds` how long it took in all, `upstream_seconds` how long the service took to begin its answer; `shadow`
        is the shadow rule that would have been chosen, and what it would have answered; `forward_auth` is the kind of
        proxy that asked and carries the request itself.
        """
        if self._file is None:
            return
        second = int(at)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        user = session = ""
        if identity is not None:
            user = identity.user
            if identity.session is not None:
                session = identity.session.id
        key = (method, host, path, address, agent, user, session, rule, answer, reason, upstream)
        about = self._known.get(key)
        if about is None:
            about = self._spell(key)
        if len(request_id) > 64 or not request_id.isalnum():
            request_id = _quoted(visible(request_id, 128))[1:-1]
        more = "" if shadow is None else f',"shadow":{{"rule":{_quoted(shadow[0])},"answer":{_quoted(shadow[1])}}}'
        if forward_auth:
            more += f',"forward_auth":{_quoted(forward_auth)}'
        batch = self._batch
        batch += (
            f'{{"time":"{self._stamp}{_MILLISECONDS[int((at - second) * 1000.0)]}","status":{status},{about},'
            f'"risk":{risk},"received":{received},"sent":{sent},"duration_us":{int(seconds * 1e6)},'
            f'"upstream_us":{int(upstream_seconds * 1e6)},"request_id":"{request_id}"{more}}}\n'
        ).encode()
        if len(batch) >= BATCH:
            self.flush()

    def _spell(self, key: tuple[str, ...]) -> str:
        """The texts of a request as members of a JSON object, remembered where they are short."""
        method, host, path, address, agent, user, *ours = key
        shown = (visible(method, 32), visible(host, 255), visible(path), visible(address, 64), visible(agent))
        texts = dict(zip(TEXTS, (*shown, visible(user, 256), *ours), strict=True))
        about = orjson.dumps(texts).decode()[1:-1]
        if len(about) <= LONGEST:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[key] = about
        return about

    def flush(self) -> None:
        """Hand on what was written so far; to be called a few times a second."""
        if self._batch and self._file is not None:
            batch, self._batch = self._batch, bytearray()
            self._file.put(batch)

    def close(self, timeout: float = 5.0) -> None:
        """Write everything, waiting `timeout` seconds for a reader that is slow."""
        self.flush()
        if self._file is not None:
            self._file.close(timeout)


class _File:
    """A file written by its own thread."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._descriptor = sys.stdout.fileno() if path is None else _open(path)
        self._queue: SimpleQueue[bytearray | None] = SimpleQueue()
        self._handed = 0
        self._written = 0
        self._writer: threading.Thread | None = None
        self.dropped = 0

    def put(self, batch: bytearray) -> None:
        if self._handed - self._written + len(batch) > BACKLOG:
            self.dropped += batch.count(b"\n")
            return
        self._handed += len(batch)
        if self._writer is None:
            self._writer = threading.Thread(target=self._run, name="access-log", daemon=True)
            self._writer.start()
        self._queue.put(batch)

    def close(self, timeout: float) -> None:
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join(timeout)
            if self._writer.is_alive():
                return  # it still holds the descriptor
            self._writer = None
        if self._path is not None and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _run(self) -> None:
        well = True
        while (batch := self._queue.get()) is not None:
            rest = memoryview(batch)
            try:
                self._reopen_if_moved()
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                well = True
            except OSError as error:
                self.dropped += bytes(rest).count(b"\n")
                if well:
                    log.error("access log lines are lost: %s", error)
                well = False
            self._written += len(batch)

    def _reopen_if_moved(self) -> None:
        if self._path is None:
            return
        try:
            there = self._path.stat()
            here = os.fstat(self._descriptor)
            if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                return
        except FileNotFoundError:
            pass
        fresh = os.open(self._path, _FLAGS, _MODE)
        os.close(self._descriptor)
        self._descriptor = fresh


_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_MODE: Final = 0o640
"""Readable by the group, where log shippers are."""


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        return os.open(path, _FLAGS, _MODE)
    except OSError as error:
        raise ConfigError(
            f"access log {path} cannot be opened: {error.strerror or error}", "check log.access"
        ) from error


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()
