"""A gateway that runs, asked by the command line about what only it knows: how its limits stand in its memory.

    <folder>/5f0c2a….sock      one for each process, 0600, in a folder that only its user can enter

One question for each connection, a line of JSON; one line answers it. Who asks is told by the kernel, and is this
process's user, or root. Whoever may ask could as well read the keys and the database, so there is no password.

A folder holds the sockets of as many processes as use it. Each has a name of its own, and is in the folder under it
only once it is listened on; so a socket that refuses to be connected to belongs to nobody any more, and is taken away.
Addresses are made through the folder's descriptor: paths longer than the 107 bytes a socket's may have are fine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import socket
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

import orjson

from gateway.core.contracts import Ledger
from gateway.core.errors import ConfigError, StoreAway, UserError
from gateway.limits.spelling import Who
from gateway.limits.standing import Standing
from gateway.limits.standings import Standings, reset_event

_log = logging.getLogger("sallyport")

SUFFIX = ".sock"
LONGEST = 1 << 20
"""Bytes of a question."""
PATIENCE = 5.0
"""Seconds for a question, and for an answer."""


class Control:
    """The socket of one process."""

    def __init__(self, folder: Path, standings: Standings, ledger: Ledger) -> None:
        self._folder = folder
        self._standings = standings
        self._ledger = ledger
        self._name = token_hex(8)
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen. Raises `ConfigError` where the folder cannot be made, or others can enter it."""
        try:
            with contextlib.suppress(FileExistsError):
                self._folder.mkdir(mode=0o700)
            with _entered(self._folder) as (within, status):
                if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                    raise ConfigError(
                        f"control: others can enter {self._folder}", f"chmod 700 {self._folder}, as the gateway's user"
                    )
                for name in _sockets(self._folder):
                    if not _listened_on(within / name):
                        (within / name).unlink(missing_ok=True)
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                sock.setblocking(False)
                hidden = within / f".{self._name}"
                sock.bind(str(hidden))
                hidden.chmod(0o600)
                sock.listen(8)
                self._server = await asyncio.start_unix_server(self._talk, sock=sock, limit=LONGEST)
                hidden.rename(within / (self._name + SUFFIX))
        except OSError as error:
            raise ConfigError(f"control: {self._folder} cannot be used: {error.strerror or error}") from None

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            with contextlib.suppress(OSError):
                (self._folder / (self._name + SUFFIX)).unlink()
            self._server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                uid = _peer(writer)
                if uid not in (os.geteuid(), 0):
                    return
                if not (line := await reader.readline()):  # another process that starts, and looks who is there
                    return
            answer = await self._answer(orjson.loads(line), user_of(uid))
            writer.write(orjson.dumps(answer) + b"\n")
            async with asyncio.timeout(PATIENCE):
                await writer.drain()
        except (ValueError, KeyError, TypeError, OSError, TimeoutError) as error:
            _log.warning("a question on the control socket was not understood: %s", type(error).__name__)
        except Exception:
            _log.exception("a question on the control socket could not be answered")
        finally:
            writer.close()

    async def _answer(self, question: Mapping[str, Any], by: str) -> Mapping[str, Any]:
        rule, limit, who = question["rule"], question["limit"], Who(question["who"])
        try:
            if question["do"] == "status":
                found = self._standings.local_status(rule, limit, who, question["most"])
                return {"standings": [list(one) for one in found]}
            if question["do"] != "reset":
                raise ValueError(question["do"])
            gone = self._standings.local_reset(rule, limit, who)
            await self._ledger.record(reset_event(rule, limit, question["spelled"], gone, question["reason"], by))
        except UserError as error:
            return {"error": [error.code, error.detail, error.status]}
        except StoreAway as error:
            return {"error": ["ERR-STORE-AWAY", f"{gone} were reset, but no event could be written: {error}", 503]}
        return {"counters": gone}


async def status(folder: Path, rule: str, limit: str, who: Who, most: int) -> list[Standing] | None:
    """How counters stand in the memory of each gateway that runs on `folder`; None where none does. Raises as `ask`."""
    answers = await ask(folder, {"do": "status", **_about(rule, limit, who), "most": most})
    return [Standing(*each) for answer in answers for each in answer["standings"]][:most] if answers else None


async def reset(folder: Path, rule: str, limit: str, who: Who, *, spelled: str, reason: str) -> int | None:
    """Have them begin anew; how many there were, None where no gateway runs. Each that does writes an event, in which
    `who` is `spelled`. Raises as `ask`."""
    question = {"do": "reset", **_about(rule, limit, who), "spelled": spelled, "reason": reason}
    answers = await ask(folder, question)
    return sum(answer["counters"] for answer in answers) if answers else None


async def ask(folder: Path, question: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What each gateway that runs on `folder` answers; none: no gateway runs.

    Raises `UserError` as they do, `ConfigError` where this user may not ask.
    """
    try:
        with _entered(folder) as (within, _):
            asked = [await _ask(within / name, question) for name in _sockets(folder)]
    except FileNotFoundError:
        return []
    except PermissionError:
        raise ConfigError(f"only the gateway's user and root may ask it, in {folder}", "run this as one of them") from (
            None
        )
    answers = [answer for answer in asked if answer is not None]
    for answer in answers:
        if (error := answer.get("error")) is not None:
            raise UserError(*error)
    return answers


async def _ask(path: Path, question: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """None where the process of that socket has gone. A process may go while it is asked, which says no more."""
    try:
        async with asyncio.timeout(2 * PATIENCE):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 26)
            try:
                writer.write(orjson.dumps(question) + b"\n")
                answer: Mapping[str, Any] = orjson.loads(await reader.readline())
            finally:
                writer.close()
    except (ConnectionError, FileNotFoundError, ValueError):
        return None
    except TimeoutError:
        raise UserError("ERR-TIMED-OUT", "A gateway that runs here does not answer.", 504) from None
    return answer


@contextlib.contextmanager
def _entered(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _sockets(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(SUFFIX))


def _listened_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:  # many wait already
            return True
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


def _peer(writer: asyncio.StreamWriter) -> int:
    """The user at the other end."""
    size = struct.calcsize("3i")
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as peer:
        _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)


def _about(rule: str, limit: str, who: Who) -> Mapping[str, Any]:
    return {"rule": rule, "limit": limit, "who": [sorted(each) for each in who.named]}


def user_of(uid: int) -> str:
    """The name of a user of this machine."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
