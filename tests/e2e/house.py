"""What `make run` brings up, in a thread of this process: the real gateway before the real demo service.

The project's own config.yaml and policies, so what an operator tries first is what is tested. The clock goes as usual
and can be told to leap: nobody waits ten minutes for a proof to grow old.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import pyotp
import uvloop
from aiohttp import web

from demo.service import application
from gateway import settings
from tests.rig.ports import free_port

if TYPE_CHECKING:
    from gateway.app import App
    from gateway.core.identity import Session

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery staple"
T = TypeVar("T")


class LeapingClock:
    """The machine's clock, plus every leap so far."""

    def __init__(self) -> None:
        self._leapt = 0.0

    def now(self) -> float:
        return time.time() + self._leapt

    def monotonic(self) -> float:
        return time.monotonic() + self._leapt

    def leap(self, seconds: float) -> None:
        self._leapt += seconds


@dataclass(frozen=True)
class Received:
    """A request as the service got it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Phone:
    """Somebody's authenticator app."""

    def __init__(self, secret: str, clock: LeapingClock) -> None:
        self.secret = secret
        self._totp = pyotp.TOTP(secret)
        self._clock = clock

    @property
    def code(self) -> str:
        """What it shows now."""
        return self._totp.at(int(self._clock.now()))

    @property
    def wrong_code(self) -> str:
        """Six digits that it shows at no time near now."""
        near = {self._totp.at(int(self._clock.now()) + 30 * step) for step in range(-20, 21)}
        return next(code for code in map("{:06d}".format, range(1000)) if code not in near)


class House:
    """A running gateway, its service, and the users ann (of the admins) and bob."""

    def __init__(self, folder: Path, like: Path | None = None, **settings: object) -> None:
        """Everything it writes is under `folder`; it begins with what a house left under `like`.

        `settings` are those that differ from the project's own.
        """
        self.clock = LeapingClock()
        self.received: list[Received] = []
        """Whatever reached the service, in order."""
        self.app: App
        keys = getattr(settings.get("mfa"), "webauthn", None)  # browsers bind them to a name
        self.url = f"http://{'127.0.0.1' if keys is None else 'localhost'}:{free_port()}"
        self.elsewhere = ""
        """Another origin, to which the service sends whoever asks for `/elsewhere`."""
        self._folder = folder
        self._like = like
        self._settings = settings
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="house")

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` where the gateway runs."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def start(self) -> None:
        self._thread.start()
        self.do(self._start())

    def stop(self) -> None:
        self.do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        from gateway.app import App

        service = application()
        service.middlewares.insert(0, self._record)
        self._service = web.AppRunner(service, access_log=None, auto_decompress=False, shutdown_timeout=0.1)
        await self._service.setup()
        await web.TCPSite(self._service, "127.0.0.1", 0).start()
        host, port = self._service.addresses[0][:2]
        self.elsewhere = f"http://{host}:{port}"
        environment = {
            "SALLYPORT_LISTEN": f"127.0.0.1:{urlsplit(self.url).port}",
            "SALLYPORT_ADMIN_LISTEN": "127.0.0.1:0",
            "SALLYPORT_PUBLIC_URL": self.url,
            "SALLYPORT_UPSTREAM": self.elsewhere,
            "SALLYPORT_DATA": str(self._folder / "data"),
        }
        if self._like is not None:
            shutil.copytree(self._like / "data", self._folder / "data")
        loaded = settings.load(ROOT / "config.yaml", environment)
        log = loaded.log.model_copy(update={"access": str(self._folder / "access.log")})
        self.app = App(loaded.model_copy(update={"log": log, **self._settings}), clock=self.clock)
        await self.app.start()
        if self._like is None:
            users = self.app.users
            await users.add("ann", PASSWORD, email="ann@example.com", display_name="Ann Lee", groups=("admins",))
            await users.add("bob", PASSWORD, email="bob@example.com", email_confirmed=True)

    async def _stop(self) -> None:
        await self.app.stop(grace=1.0)
        await self._service.cleanup()

    @web.middleware
    async def _record(self, request: web.Request, handler: Any) -> web.StreamResponse:
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers)
        self.received.append(Received(request.method, request.raw_path, headers, await request.read()))
        if request.path == "/elsewhere":
            return web.Response(status=302, headers={"Location": f"{self.elsewhere}/public/"})
        if request.path == "/admin/cacheable":
            sent = request.method == "POST"
            text = "<h1>Sent</h1>" if sent else "<h1>A form</h1><form method='post'><button>Send</button></form>"
            headers = {"Cache-Control": "max-age=3600" if sent else "no-store"}
            return web.Response(text=text, content_type="text/html", headers=headers)
        response: web.StreamResponse = await handler(request)
        return response

    # -- what tests ask ------------------------------------------------------------------------------------------------

    def posts(self) -> list[Received]:
        """The POSTs that reached the service."""
        return [one for one in self.received if one.method == "POST"]

    def sessions(self, user: str) -> list[Session]:
        async def ask() -> list[Session]:
            known = await self.app.users.find(user)
            assert known is not None
            return await self.app.sessions.list(known.tenant, known.subject)

        return self.do(ask())

    def enrol(self, user: str) -> tuple[Phone, tuple[str, ...]]:
        """Give `user` an authenticator app without any page; the app and their backup codes."""
        from gateway.core.identity import Proof

        async def bind() -> tuple[str, tuple[str, ...]]:
            known = await self.app.users.find(user)
            assert known is not None
            proof = Proof("password", self.clock.now())
            _, identity = await self.app.sessions.open(known, proof, address="127.0.0.1", agent="elsewhere")
            setup = await self.app.people.enrolment.begin_totp(identity)
            secret = parse_qs(urlsplit(setup.uri).query)["secret"][0]
            codes = await self.app.people.enrolment.confirm(identity, setup.id, Phone(secret, self.clock).code)
            assert identity.session is not None
            await self.app.sessions.end(known.tenant, known.subject, identity.session.id)
            return secret, codes

        secret, codes = self.do(bind())
        self.clock.leap(60)  # a code counts once: the next one is another
        return Phone(secret, self.clock), codes


@contextmanager
def open_house(folder: Path, like: Path | None = None, **settings: object) -> Iterator[House]:
    """A house, from its first file to its last socket."""
    house = House(folder, like, **settings)
    try:
        house.start()
        yield house
    finally:
        house.stop()
