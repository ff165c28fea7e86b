"""`make run`: the gateway, a service behind it and two users, until Ctrl-C.

The gateway here is the one an operator runs: `python -m gateway run` with the project's own `config.yaml`, users made
by `python -m gateway user`. Only places are set, through the environment that config.yaml already reads.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import signal
import socket
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
USERS = (("ann", "admins"), ("bob", ""))
READY_WITHIN = 30.0
STOP_WITHIN = 10.0


class DemoError(Exception):
    """The demo cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Places:
    """Where everything of one demo is."""

    gateway: str
    admin: str
    service: str
    data: Path

    def environment(self) -> dict[str, str]:
        """What config.yaml reads."""
        return os.environ | {
            "SALLYPORT_LISTEN": self.gateway,
            "SALLYPORT_ADMIN_LISTEN": self.admin,
            "SALLYPORT_PUBLIC_URL": f"http://{self.gateway}",
            "SALLYPORT_UPSTREAM": f"http://{self.service}",
            "SALLYPORT_DATA": str(self.data),
            "PYTHONUNBUFFERED": "1",
        }


class Child:
    """One program of the demo: its output in a file, and in a session of its own so that Ctrl-C reaches only us."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str, environment: dict[str, str]) -> None:
        """Run `python -m …`."""
        with self.log.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *arguments, cwd=ROOT, env=environment,
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    async def ended(self) -> str:
        """Wait until it ends by itself; returns what there is to say about that."""
        if self._process is None:
            raise DemoError(f"{self.name} was never started")
        code = await self._process.wait()
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join([f"The {self.name} ended with exit code {code}. It said last ({self.log}):", *lines])

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when that was not enough."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_WITHIN)
        except TimeoutError:
            print(f"The {self.name} did not stop within {STOP_WITHIN:.0f} s and was killed.")
            self._process.kill()
            await self._process.wait()


def free(address: str) -> bool:
    """Whether nobody listens on `host:port`."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise DemoError(f"cannot listen on {address}: {error.strerror}") from error
    return True


def next_free(address: str) -> str:
    """`address`, or the same host with the next port that is free."""
    host, _, first = address.rpartition(":")
    for port in range(int(first), min(int(first) + 100, 65536)):
        if free(f"{host}:{port}"):
            return f"{host}:{port}"
    raise DemoError(f"no free port from {address} on")


async def user(places: Places, *arguments: str, password: str) -> tuple[int, str]:
    """Run `sallyport user …`; returns its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "user", *arguments, "--password-stdin", "--config", "config.yaml",
        cwd=ROOT, env=places.environment(),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate(password.encode() + b"\n")
    return process.returncode or 0, said.decode(errors="replace").strip()


async def make_users(places: Places, password: str) -> None:
    """Add ann and bob; those who are there from the last run get today's password."""
    for name, groups in USERS:
        add = ["add", name, *(["--groups", groups] if groups else [])]
        code, said = await user(places, *add, password=password)
        if code:
            code, again = await user(places, "passwd", name, password=password)
            if code:
                raise DemoError(f"cannot make the user {name}:\n{said}\n{again}")


async def ready(admin: str) -> None:
    """Return when the gateway says that it is ready."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READY_WITHIN
    while not await loop.run_in_executor(None, _answers, f"http://{admin}/readyz"):
        if loop.time() > deadline:
            raise DemoError(f"the gateway was not ready within {READY_WITHIN:.0f} s")
        await asyncio.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def welcome(places: Places, password: str) -> str:
    """What there is to try."""
    url = f"http://{places.gateway}"
    python = Path(sys.executable)
    command = str(python.relative_to(ROOT) if python.is_relative_to(ROOT) else python)
    return f"""
  Sallyport is on  {url}

    ann  {password}   in the group admins
    bob  {password}

  In a browser
    {url}/              sign in as ann or bob
    {url}/admin/        ann only, with a second factor: set one up on the way (any TOTP app)
    {url}/public/       nobody is asked anything
    {url}/public/form   fill in signed out, send behind the gate: it arrives once, after the sign-in
    {url}/.sallyport/account   second factors and sessions

  On the command line
    curl -i {url}/public/echo        what reaches the service; forged X-Forwarded-User does not
    curl -i {url}/echo               401 and problem details, no redirect, for a machine
    curl -i {url}/admin/echo         what it would take
    curl -s http://{places.admin}/metrics | grep sallyport_
    {command} -m gateway explain GET /admin/users --as bob

  Logs and data are in {_short(places.data)}. Edit policies/ while it runs: a good edit counts at once, a bad one is
  refused and named in {_short(places.data / "gateway.log")}. Ctrl-C stops everything.
"""


def _short(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


async def run(places: Places, password: str) -> None:
    """Bring everything up, and down again at SIGINT, SIGTERM or when a part of it ends."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    service = Child("demo service", places.data / "service.log")
    gateway = Child("gateway", places.data / "gateway.log")
    environment = places.environment()
    stopped = asyncio.ensure_future(stop.wait())
    waiting: set[asyncio.Future[Any]] = {stopped}
    try:
        print("Starting ...", flush=True)
        await service.start("demo.service", "--listen", places.service, environment=environment)
        await make_users(places, password)
        if stop.is_set():
            return
        await gateway.start("gateway", "run", "--config", "config.yaml", environment=environment)
        ends = [asyncio.ensure_future(child.ended()) for child in (service, gateway)]
        up = asyncio.ensure_future(ready(places.admin))
        waiting |= {*ends, up}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if up.done():
            up.result()
            print(welcome(places, password), flush=True)
            await asyncio.wait(waiting - {up}, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            if end.done() and not stop.is_set():
                raise DemoError(end.result())
    finally:
        for task in waiting:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*waiting, return_exceptions=True)
        print("Stopping ...", flush=True)
        await gateway.stop()
        await service.stop()


def prepare(arguments: argparse.Namespace) -> tuple[Places, str]:
    """Choose ports, a folder and a password."""
    if not free(arguments.listen):
        other = next_free(arguments.listen)
        raise DemoError(
            f"{arguments.listen} is taken: stop what listens there, or use another address: make run LISTEN={other}"
        )
    data = arguments.data.resolve()
    if arguments.fresh and (data / "service.log").exists():
        shutil.rmtree(data)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    places = Places(arguments.listen, next_free(arguments.admin_listen), next_free(arguments.service), data)
    return places, os.environ.get("SALLYPORT_DEMO_PASSWORD") or secrets.token_urlsafe(9)


def main() -> int:
    """Exit 0 after Ctrl-C, 1 when something could not be started or ended by itself."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="The gateway before a demo service.")
    parser.add_argument("--fresh", action="store_true", help="forget users, factors and sessions of the last run")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "demo", metavar="FOLDER")
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT")
    parser.add_argument("--admin-listen", default="127.0.0.1:9090", metavar="HOST:PORT", help="or the next free port")
    parser.add_argument("--service", default="127.0.0.1:9000", metavar="HOST:PORT", help="or the next free port")
    try:
        asyncio.run(run(*prepare(parser.parse_args())))
    except DemoError as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
