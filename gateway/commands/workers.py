"""Several workers, one for each core: processes that listen on the same addresses (SO_REUSEPORT), so that the kernel
shares connections out between them.

The parent serves nothing. It binds what cannot be bound twice (Unix sockets), makes the workers by forking, so that
they share the memory of what is loaded already, starts one again that has died, and hands signals on. A worker whose
parent has died stops as if it had been told to: a pipe that only the parent keeps open ends.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.core.errors import ConfigError

if TYPE_CHECKING:
    from gateway.settings import Address, Listen, Settings

Serve = Callable[["Settings", int], None]
"""Runs a gateway until it is told to stop; the number is of a descriptor that ends when the parent has died."""

LONGEST_PAUSE = 30.0
"""Seconds before a worker that dies again and again is started once more."""
STEADY = 60.0
"""Seconds after which a worker is taken for well."""
UNFIT = 2
"""Exit code of a worker whose configuration is not fit to run with."""

_TOLD = (signal.SIGTERM, signal.SIGINT)
_HEARD = (*_TOLD, signal.SIGCHLD)
_log = logging.getLogger("sallyport")


def run(settings: Settings, serve: Serve) -> int:
    """Run `settings.workers` workers until SIGTERM or Ctrl-C; the exit code. Raises `ConfigError`."""
    from gateway import app  # noqa: F401 - loaded once, before the workers part

    settings = _bound(settings)
    try:
        return Workers(settings, serve).run()
    finally:
        for listen in settings.listen:
            if listen.address.path:
                Path(listen.address.path).unlink(missing_ok=True)


def _bound(settings: Settings) -> Settings:
    """With sockets that are open where workers cannot each open their own. Raises `ConfigError`."""
    from gateway.wire.listener import Where, bind, inherited

    def opened(listen: Listen) -> list[Listen]:
        at = listen.address
        if at.systemd:
            found = [where.descriptor for where in inherited()]
        elif at.path:
            found = [sock.detach() for sock in bind(Where(path=at.path), mode=int(listen.mode, 8))]
        else:
            if at.descriptor < 0:
                for sock in bind(Where(at.host, at.port)):  # somebody else's port would be shared, too
                    sock.close()
            return [listen]
        address = at.model_copy(update={"systemd": False})
        return [listen.model_copy(update={"address": address.model_copy(update={"descriptor": fd})}) for fd in found]

    return settings.model_copy(update={"listen": tuple(each for listen in settings.listen for each in opened(listen))})


def of_worker(settings: Settings, number: int) -> Settings:
    """The settings of one worker, counted from 0: its admin listener is that many ports, or names, further on."""
    admin = settings.admin_listen
    if admin is None or number == 0:
        return settings
    return settings.model_copy(update={"admin_listen": _further(admin, number)})


def _further(admin: Address, number: int) -> Address:
    if admin.path:
        return admin.model_copy(update={"path": f"{admin.path}.{number}"})
    return admin.model_copy(update={"port": admin.port + number if admin.port else 0})


class Workers:
    """The processes, and what has become of them."""

    def __init__(self, settings: Settings, serve: Serve) -> None:
        self._settings = settings
        self._serve = serve
        self._running: dict[int, tuple[int, float]] = {}
        """Process id → number of the worker, and when it was started."""
        self._due: dict[int, float] = {}
        """Number of a worker that has died → when to start it again, in monotonic seconds."""
        self._deaths: dict[int, int] = {}
        """Number → how often it has died since it was well."""
        self._stopping = False
        self._code = 0
        self._alive, self._kept = os.pipe()

    def run(self) -> int:
        """Until all have ended; the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)  # and waited for, below: no handler, no race
        for number in range(self._settings.workers):
            self._start(number)
        while self._running or self._due:
            pause = min(self._due.values(), default=time.monotonic() + 3600.0) - time.monotonic()
            heard = signal.sigtimedwait(_HEARD, max(0.0, pause))
            if heard is not None and heard.si_signo in _TOLD:
                self._tell(heard.si_signo)
            self._bury()
            for number in [number for number, at in self._due.items() if at <= time.monotonic()]:
                self._start(number)
        return self._code

    def _start(self, number: int) -> None:
        self._due.pop(number, None)
        process = os.fork()
        if process:
            self._running[process] = number, time.monotonic()
            return
        code = 1
        try:
            code = self._work(number)
        except BaseException:
            _log.exception("worker %d failed", number + 1)
        finally:
            logging.shutdown()
            os._exit(code)  # nothing of the parent's is ours to end

    def _work(self, number: int) -> int:
        os.close(self._kept)
        os.setpgid(0, 0)  # Ctrl-C is for the parent, who hands it on
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s %(name)s[{number + 1}]: %(message)s"))
        try:
            self._serve(of_worker(self._settings, number), self._alive)
        except ConfigError as error:
            for problem in error.problems:
                print(problem, file=sys.stderr)
            return UNFIT
        return 0

    def _tell(self, number: int) -> None:
        """Stop all, the way we were told to."""
        self._stopping = True
        self._due.clear()
        for process in self._running:
            os.kill(process, number)  # not gone: nobody but us buries it

    def _bury(self) -> None:
        """See who has ended, and what is to be done about it."""
        while self._running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            number, started = self._running.pop(process)
            code = os.waitstatus_to_exitcode(status)
            lived = time.monotonic() - started
            if self._stopping:
                # Who was told before they could listen ends by the signal itself; that is what was asked for.
                self._code = self._code or (0 if -code in _TOLD else abs(code))
            elif code == UNFIT and number not in self._deaths:
                self._code = UNFIT  # the same would become of the others
                self._tell(signal.SIGTERM)
            else:
                self._mourn(number, process, code, lived)

    def _mourn(self, number: int, process: int, code: int, lived: float) -> None:
        deaths = 0 if lived >= STEADY else self._deaths.get(number, 0)
        pause = min(LONGEST_PAUSE, 2.0 ** (deaths - 1)) if deaths else 0.0
        self._deaths[number] = deaths + 1
        self._due[number] = time.monotonic() + pause
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        _log.error(
            "worker %d (process %d) %s after %.0f s; it is started again in %.0f s",
            number + 1,
            process,
            how,
            lived,
            pause,
        )
