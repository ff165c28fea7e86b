"""Somebody with a browser, as far as HTTP goes: keeps cookies, fills in forms, follows only where it is told to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import pyotp

from gateway.core.clock import Clock
from tests.rig.client import RawClient
from tests.rig.forms import Form, Forms
from tests.rig.gateway import PASSWORD
from tests.rig.messages import Response

OURS = "/.sallyport/"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


class Visitor:
    """A browser of somebody."""

    def __init__(self, port: int, *, origin: str = "http://good.test", agent: str = FIREFOX) -> None:
        self.port = port
        self.origin = origin
        self.agent = agent
        self.cookies: dict[str, str] = {}
        self.more: dict[str, str] = {}
        """Further header fields of every request."""

    async def send(self, method: str, path: str, body: bytes = b"", **more: str) -> Response:
        said = {"Host": urlsplit(self.origin).netloc, "User-Agent": self.agent, "Accept": "text/html", **self.more}
        if self.cookies:
            said["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if method == "POST":
            said |= {"Origin": self.origin, "Content-Length": str(len(body))}
        said |= {name.replace("_", "-"): value for name, value in more.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
        async with await RawClient.connect(self.port) as client:
            await client.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
            answer = await client.response(method)
        for line in answer.all("Set-Cookie"):
            name, _, rest = line.decode().partition("=")
            self.cookies.pop(name, None)
            if "Max-Age=0" not in rest:
                self.cookies[name] = rest.partition(";")[0]
        return answer

    async def get(self, path: str, **more: str) -> Response:
        return await self.send("GET", path if path.startswith("/") else OURS + path, **more)

    async def post(self, path: str, fields: dict[str, str], **more: str) -> Response:
        body = urlencode(fields).encode()
        path = path if path.startswith("/") else OURS + path
        return await self.send("POST", path, body, Content_Type="application/x-www-form-urlencoded", **more)

    async def fill(self, page: Response, action: str, **fields: str) -> Response:
        """Fill in and send the one form of `page` whose address starts with `action`."""
        form = form_of(page, action)
        return await self.post(form.action, {**form.fields, **fields})

    async def sign_in(self, name: str = "bob", password: str = PASSWORD, query: str = "") -> Response:
        return await self.fill(await self.get(f"login{query}"), "login", username=name, password=password)

    async def enrol(self, clock: Clock) -> tuple[Phone, list[str]]:
        """An authenticator app, through the pages, right after signing in; and the backup codes."""
        scan = await self.fill(await self.get("enrol"), "enrol")
        shown = re.search(r'id="secret">([A-Z2-7 ]+)<', scan.body.decode())
        assert shown, scan.body
        phone = Phone(shown[1].replace(" ", ""), clock)
        done = await self.fill(scan, "enrol/", code=phone.code)
        assert done.status == 200, done.body
        return phone, re.findall(r"<li>([0-9a-z]{5}-[0-9a-z]{5})</li>", done.body.decode())


@dataclass
class Phone:
    """An authenticator app."""

    secret: str
    clock: Clock

    @property
    def code(self) -> str:
        return pyotp.TOTP(self.secret).at(int(self.clock.now()))

    @property
    def wrong(self) -> str:
        now = int(self.clock.now())
        near = {pyotp.TOTP(self.secret).at(now + 30 * step) for step in range(-20, 21)}
        return next(code for code in map("{:06d}".format, range(1000)) if code not in near)


def form_of(page: Response, action: str) -> Form:
    parser = Forms()
    parser.feed(page.body.decode())
    found = [form for form in parser.forms if form.action.startswith(OURS + action)]
    assert len(found) == 1, (page.status, page.raw, [form.action for form in parser.forms])
    return found[0]


def location(answer: Response) -> str:
    """Where a redirect leads."""
    assert answer.status in (303, 307), (answer.raw, answer.body)
    return answer.one("Location").decode()


def as_json(answer: Response) -> Any:
    import orjson

    return orjson.loads(answer.body)
