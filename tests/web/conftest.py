"""The front desk with the real rooms behind it, on a real Unix socket, and a browser to visit it with."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
import pytest
from aiohttp import web

from gateway.audit.preferences import Preferences
from gateway.audit.recorder import Recorder
from gateway.catalog import ALGORITHMS
from gateway.core.clock import ManualClock
from gateway.core.decision import CALM, Score
from gateway.core.errors import StoreAway
from gateway.core.events import Event, Kind
from gateway.core.facts import Facts
from gateway.core.identity import DEFAULT_TENANT, Identity
from gateway.core.rule import LimitSpec
from gateway.crypto.keys import KeyRing
from gateway.identity.device import DeviceCookie
from gateway.identity.local import LocalUsers
from gateway.identity.passwords import Passwords
from gateway.identity.session_rows import revoke
from gateway.identity.throttle import SignInThrottle
from gateway.limits.limiter import Limiter
from gateway.limits.standings import Standings
from gateway.mfa import otp
from gateway.mfa.backup_codes import BackupCodes
from gateway.mfa.demands import Demand, Demands
from gateway.mfa.enrolment import Enrolment
from gateway.mfa.factors import Factors
from gateway.mfa.interrupted import InterruptedRequests
from gateway.mfa.recovery import Recoveries
from gateway.mfa.stepup import StepUps
from gateway.mfa.totp import Totp
from gateway.store.event_table import EventTable
from gateway.store.memory import MemoryKeyValue
from gateway.store.sql import Records
from gateway.store.sql_key_value import SqlKeyValue
from gateway.web.app import make_app, make_runner
from gateway.web.desk import Desk
from gateway.web.own_limits import GUESSES, RULE
from tests.rig.described import demand_described
from tests.rig.forms import Form, Forms
from tests.rig.sessions import in_rows

DAY = 86_400.0
PASSWORD = "correct horse battery staple"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
P = "/.sallyport/"
LIMITS = [
    ("app", LimitSpec("per-user", ("user",), "token_bucket", 3, 60.0, 3)),
    ("app", LimitSpec("per-key", ("header:x-api-key",), "sliding_window", 3, 60.0, 3, shadow=True)),
]
"""Rules' limits, for who looks at them."""
DEMANDS = [
    Demand(groups=frozenset({"admins"})),
    Demand(groups=frozenset({"finance", "payroll"}), grace=14 * DAY),
    Demand(users=frozenset({"kim"}), factors=frozenset({"webauthn"}), grace=7 * DAY),
]
"""Who must have a second factor."""


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Any
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def location(self) -> str:
        return str(self.headers["Location"])

    def form(self, action: str) -> Form:
        parser = Forms()
        parser.feed(self.text)
        found = [form for form in parser.forms if form.action == P + action]
        assert len(found) == 1, f"{len(found)} forms to {action} among {[form.action for form in parser.forms]}"
        return found[0]


class Browser:
    """Keeps cookies, says where it comes from, follows nothing by itself. The wire's headers go with everything."""

    def __init__(
        self,
        client: aiohttp.ClientSession,
        *,
        scheme: str = "http",
        host: str = "app.example.com",
        address: str = "192.0.2.7",
        agent: str = FIREFOX,
    ) -> None:
        self._client = client
        self.cookies: dict[str, str] = {}
        self.origin = f"{scheme}://{host}"
        self.wire = {
            "Sallyport-Client-Address": address,
            "Sallyport-Client-Network": address,
            "Sallyport-Scheme": scheme,
            "Sallyport-Host": host,
            "Sallyport-Request-Id": "01TESTREQUEST",
        }
        self.agent = agent

    async def send(
        self, method: str, path: str, *, body: bytes = b"", headers: dict[str, str] | None = None, origin: bool = True
    ) -> Answer:
        said = {**self.wire, "User-Agent": self.agent, "Accept": "text/html,*/*;q=0.8"}
        if self.cookies:
            said["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if method not in ("GET", "HEAD") and origin:
            said["Origin"] = self.origin
        said |= headers or {}
        url = aiohttp.client.URL(f"http://desk{path}", encoded=True)
        async with self._client.request(
            method, url, data=body or None, headers=said, allow_redirects=False, skip_auto_headers=["Content-Type"]
        ) as response:
            for line in response.headers.getall("Set-Cookie", []):
                name, _, rest = line.partition("=")
                value = rest.partition(";")[0]
                if "Max-Age=0" in line:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = value
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.send("GET", path if path.startswith("/") else P + path, **more)

    async def post(self, path: str, fields: dict[str, str], **more: Any) -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded", **more.pop("headers", {})}
        path = path if path.startswith("/") else P + path
        return await self.send("POST", path, body=urlencode(fields).encode(), headers=headers, **more)

    async def fill(self, page: Answer, action: str, **fields: str) -> Answer:
        """Fill in and send the form of `page` that goes to `action`."""
        form = page.form(action)
        return await self.post(form.action, {**form.fields, **fields})

    async def sign_in(self, name: str = "bob", password: str = PASSWORD, query: str = "") -> Answer:
        return await self.fill(await self.get(f"login{query}"), "login", username=name, password=password)

    async def api(self, method: str, path: str, value: Any = None, **more: Any) -> Answer:
        headers = {"Accept": "application/json", **more.pop("headers", {})}
        if method == "POST":
            headers.setdefault("Content-Type", "application/json")
        body = b"" if value is None else orjson.dumps(value)
        answer = await self.send(method, f"{P}api/v1/{path}", body=body, headers=headers, **more)
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        demand_described(P, method, path, answer.status, kind, answer.body)
        return answer


class House:
    """Every room, and what was told to the risk room."""

    limiter: Limiter

    def __init__(self, desk: Desk, ledger: Recorder, records: Records) -> None:
        self.desk = desk
        self.ledger = ledger
        self.records = records
        self.risk = CALM
        self.learnt: list[tuple[Facts, Identity]] = []
        self.forgetful = False
        """Whether no place can be learnt."""

    async def told(self, kind: Kind) -> list[Event]:
        await self.ledger.flush()
        return [event for event in await self.ledger.events(DEFAULT_TENANT, limit=500) if event.kind is kind]

    async def identity(self, browser: Browser) -> Identity:
        identity = await self.desk.sessions.find(browser.cookies["sallyport"])
        assert identity is not None
        return identity


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def house(tmp_path: Path, clock: ManualClock) -> AsyncIterator[House]:
    records = await Records.open(f"sqlite:{tmp_path}/sallyport.db", clock=clock)
    keys = KeyRing.open(tmp_path / "keys", create=True, clock=clock)
    ledger = Recorder(EventTable(records), clock)
    passwords = Passwords()
    users = LocalUsers(records, passwords, clock, ledger)
    demands = Demands(records, clock, ledger, DEMANDS)
    sessions = in_rows(records, clock, ledger, dues=demands)
    kv = MemoryKeyValue(clock)
    totp, codes = Totp(records, keys.sealer, clock), BackupCodes(records, keys.mac, clock)
    factors = Factors(records, {"totp": totp, "backup_code": codes}, clock)
    learnt: list[tuple[Facts, Identity]] = []

    async def learn(facts: Facts, identity: Identity) -> None:
        if house.forgetful:
            raise StoreAway("nothing is learnt")
        learnt.append((facts, identity))

    async def risk(facts: Facts, identity: Identity) -> Score:
        return house.risk

    limiter = Limiter(clock, ALGORITHMS)
    enrolment = Enrolment(
        records, totp, codes, factors, clock, ledger, end_all=sessions.end_all, issuer="Sallyport", demands=demands
    )
    desk = Desk(
        preferences=Preferences(records, ledger),
        clock=clock,
        mac=keys.mac,
        ledger=ledger,
        spend=lambda *asked: limiter.spend(*asked),
        standings=Standings(lambda: [*((RULE, each) for each in GUESSES), *LIMITS], limiter),
        users=users,
        sessions=sessions,
        throttle=SignInThrottle(kv),
        device=DeviceCookie(keys.mac, clock),
        factors=factors,
        enrolment=enrolment,
        stepups=StepUps(records, SqlKeyValue(records, clock), factors, clock, ledger, keys.mac),
        interrupted=InterruptedRequests(kv, keys.sealer, clock),
        recoveries=Recoveries(records, clock, ledger, keys.mac, unbind=enrolment.unbind, revoke=revoke),
        jwks=keys.signer.jwks,
        risk=risk,
        learn=learn,
    )
    await users.add("ann", PASSWORD, email="ann@example.com", display_name="Ann Example", groups=["admins"])
    await users.add("bob", PASSWORD, email="bob@example.com", display_name="Bob", groups=["staff"])
    house = House(desk, ledger, records)
    house.learnt = learnt
    house.limiter = limiter
    yield house
    await sessions.close()
    await ledger.close()
    passwords.close()
    await records.close()


@pytest.fixture
async def socket(house: House, tmp_path: Path) -> AsyncIterator[str]:
    path = str(tmp_path / "desk.sock")
    runner = make_runner(make_app(house.desk))
    await runner.setup()
    await web.UnixSite(runner, path).start()
    yield path
    await runner.cleanup()


@pytest.fixture
async def client(socket: str) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(path=socket)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as client:
        yield client


@pytest.fixture
def visit(client: aiohttp.ClientSession) -> Callable[..., Browser]:
    """Makes browsers: `visit(address="198.51.100.4")`."""
    return lambda **about: Browser(client, **about)


@pytest.fixture
def browser(visit: Callable[..., Browser]) -> Browser:
    return visit()


@dataclass
class Phone:
    """An authenticator app."""

    secret: bytes
    clock: ManualClock

    def code(self, steps: int = 0) -> str:
        """What it shows now; `steps` of 30 seconds later or earlier."""
        return otp.code_at(self.secret, otp.step_at(self.clock.now()) + steps)


@pytest.fixture
def enrol(clock: ManualClock) -> Callable[..., Any]:
    """Sets up an app through the pages, for somebody freshly signed in; answers the phone and the backup codes."""

    async def through_the_pages(browser: Browser, after: str = "") -> tuple[Phone, list[str], Answer]:
        page = await browser.get("enrol" + (f"?next={after}" if after else ""))
        scan = await browser.fill(page, "enrol")
        phone = Phone(secret_in(scan), clock)
        form = next(form for form in _all_forms(scan) if form.action.startswith(P + "enrol/"))
        done = await browser.post(form.action, {**form.fields, "code": phone.code()})
        assert done.status == 200, done.text
        clock.advance(30)  # the code that confirmed is used up
        return phone, re.findall(r"<li>([0-9a-z]{5}-[0-9a-z]{5})</li>", done.text), done

    return through_the_pages


def secret_in(page: Answer) -> bytes:
    import base64

    shown = re.search(r'id="secret">([A-Z2-7 ]+)<', page.text)
    assert shown
    letters = shown[1].replace(" ", "")
    return base64.b32decode(letters + "=" * (-len(letters) % 8))


def _all_forms(page: Answer) -> list[Form]:
    parser = Forms()
    parser.feed(page.text)
    return parser.forms
