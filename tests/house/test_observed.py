"""What the outside sees of one eventful day: metrics, probes, the access log, events. And what nobody ever sees."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.decision import ANSWERS
from gateway.core.events import Event, Kind, Severity
from gateway.core.identity import DEFAULT_TENANT
from gateway.core.reasons import Reason
from tests.house.process import until
from tests.house.visitor import Visitor, location
from tests.rig.client import RawClient
from tests.rig.gateway import PASSWORD, Gateway, request, running
from tests.rig.messages import Request, Response
from tests.rig.upstream import Line, ok

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICY = """
rules:
  - name: counted
    match: {hosts: [good.test], paths: [/counted/**]}
    access: public
    limits: [{name: twice, key: address, algorithm: token_bucket, rate: 2/h, burst: 2}]
    upstream: app
  - name: public
    match: {hosts: [good.test], paths: [/public/**]}
    access: public
    upstream: app
  - name: away
    match: {hosts: [good.test], paths: [/away/**]}
    access: public
    upstream: other
  - name: admin
    match: {hosts: [good.test], paths: [/admin/**]}
    access: {groups: [admins]}
    step_up: {level: aal2, factors: [totp], max_age: 10m}
    upstream: app
  - name: everything-else
    match: {hosts: [good.test]}
    access: authenticated
    upstream: app
"""

FIELDS = (
    "time status method host path address agent user session rule answer reason upstream risk received sent "
    "duration_us upstream_us request_id"
).split()

TYPED = "not-the-password-but-nearly"
QUERY = "a-token-in-a-query"
BEARER = "a-token-in-a-header"
COOKIE = "a-cookie-of-the-service"
BODY = "words-of-a-form"
ANSWERED = "words-of-an-answer"


class Day:
    """What happened, and everything that was secret in it."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.secrets: set[str] = {PASSWORD, TYPED, QUERY, BEARER, COOKIE, BODY, ANSWERED}
        self.answers: dict[str, Response] = {}
        self.logged = ""
        """Everything any logger said, at any level."""
        self.lines: list[dict[str, Any]] = []
        """The access log."""
        self.events: list[Event] = []
        self.metrics = ""

    def keep(self, visitor: Visitor) -> None:
        """What its cookies hold is nobody's business; but for the name of a kept request, which is in its URL too and
        good for nothing without the others."""
        self.secrets |= {value for name, value in visitor.cookies.items() if name != "sallyport-resume"}

    def line(self, name: str) -> dict[str, Any]:
        """The access log's line of the answer called `name`."""
        request_id = self.answers[name].one("X-Request-Id").decode()
        (found,) = [line for line in self.lines if line["request_id"] == request_id]
        return found

    def kinds(self, kind: Kind) -> list[Event]:
        return [event for event in self.events if event.kind is kind]


class _Keep(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def day(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Day]:
    root = logging.getLogger()
    handler, level = _Keep(), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    folder = Path(tmp_path_factory.mktemp("day"))
    try:
        async with running(folder, policy=POLICY) as gateway:
            one = Day(gateway)
            await _happens(one)
            gateway.app.wire.settle()  # what is over is counted a turn of the loop after its answer
            asked = sum(gateway.app.metrics._requests.values())
            gateway.app._access_log.flush()
            await until(lambda: (folder / "access.log").read_text().count("\n") >= asked)
            one.lines = [json.loads(line) for line in (folder / "access.log").read_text().splitlines()]
            await gateway.app.recorder.flush()
            one.events = await gateway.app.recorder.events(DEFAULT_TENANT, limit=1000)
            one.metrics = (await _ask_admin(gateway, "/metrics")).body.decode()
            one.logged = "\n".join(handler.said)
            yield one
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


async def _ask_admin(gateway: Gateway, path: str, method: str = "GET", host: str = "admin") -> Response:
    async with await RawClient.connect(gateway.admin_port) as client:
        await client.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        return await client.response(method)


async def _answers(_: Request, line: Line) -> None:
    await line.send(ok(ANSWERED.encode(), b"Set-Cookie: app=" + COOKIE.encode()))


async def _hangs_up(_: Request, line: Line) -> None:
    line.abort()


async def _happens(day: Day) -> None:
    gateway, answers = day.gateway, day.answers

    async def answers_after_a_while(asked: Request, line: Line) -> None:
        gateway.clock.advance(0.01)
        await _answers(asked, line)

    gateway.upstream.script = answers_after_a_while
    gateway.other.script = _hangs_up
    for name, groups in (("bob", ()), ("ann", ("admins",))):
        await gateway.app.users.add(name, PASSWORD, email=f"{name}@good.test", groups=groups)

    answers["public"] = await gateway.ask(
        request(target=b"/public/x?code=" + QUERY.encode(), head=b"Authorization: Bearer " + BEARER.encode() + b"\r\n")
    )
    answers["counted"] = await gateway.ask(request(target=b"/counted/x"))
    await gateway.ask(request(target=b"/counted/x"))
    answers["throttle"] = await gateway.ask(request(target=b"/counted/x"))
    answers["refuse"] = await gateway.ask(request(host=b"Host: elsewhere.test\r\n"))
    answers["bad"] = await gateway.ask(request(target=b"/public/%zz"))
    answers["away"] = await gateway.ask(request(target=b"/away/x"))
    answers["sign_in"] = await gateway.ask(request(target=b"/app/x?next=" + QUERY.encode()))
    answers["odd"] = await gateway.ask(request(b"PROPFIND", b"/public/x"))

    bob = Visitor(gateway.port)
    bob.more["Authorization"] = f"Basic {BEARER}"
    answers["page"] = await bob.get("login?next=" + quote(f"/app/x?code={QUERY}", safe=""))
    day.keep(bob)
    answers["failed"] = await bob.fill(answers["page"], "login", username="bob", password=TYPED)
    await bob.fill(answers["page"], "login", username=TYPED, password=PASSWORD)
    answers["form"] = await bob.send(
        "POST", "/app/pay", f"say={BODY}".encode(), Content_Type="application/x-www-form-urlencoded"
    )
    onward = location(
        await bob.fill(await bob.get(location(answers["form"])), "login", username="bob", password=PASSWORD)
    )
    day.keep(bob)
    await bob.fill(await bob.get(onward), "resume/")
    day.keep(bob)
    answers["resumed"] = await bob.get("/app/pay")
    answers["allow"] = await bob.get(f"/app/x?code={QUERY}", Cookie_2="x")
    answers["not_allowed"] = await bob.get("/admin/x")

    ann = Visitor(gateway.port)
    await ann.sign_in("ann")
    day.keep(ann)
    phone, codes = await ann.enrol(gateway.clock)
    day.secrets |= {phone.secret, *codes}
    day.keep(ann)
    answers["proven"] = await ann.get("/admin/x")
    gateway.clock.advance(700)
    answers["step_up"] = await ann.get("/admin/x")
    answers["step_up_api"] = await ann.get("/admin/x", Accept="application/json")
    challenge = await ann.get(location(answers["step_up"]))
    await ann.fill(challenge, "verify/", code=phone.wrong)
    day.secrets.add(code := phone.code)
    await ann.fill(challenge, "verify/", code=code)
    day.keep(ann)
    answers["again"] = await ann.get("/admin/x")
    await ann.fill(await ann.get("logout"), "logout")

    stranger = Visitor(gateway.port)
    for _ in range(8):
        answers["guessed"] = await stranger.sign_in("bob", TYPED)
    day.keep(stranger)
    gateway.app._rounds = 0  # count what the database holds at the next round
    await until(partial(_is_counted, gateway))


async def _is_counted(gateway: Gateway) -> bool:
    """Whether the metrics tell what the database holds now, not what it held in the middle of the day."""
    app = gateway.app
    assert app.people is not None
    return (app._alive, app._enrolled) == (
        (await app.people.sessions.stats())["sessions"],
        await app.people.factors.counts(),
    )


# -- metrics -----------------------------------------------------------------------------------------------------------


def samples(day: Day, name: str) -> dict[tuple[str, ...], float]:
    """Values of a metric by the values of its labels, in the order of their names."""
    found = {}
    for family in text_string_to_metric_families(day.metrics):
        for sample in family.samples:
            if sample.name == f"sallyport_{name}":
                found[tuple(value for _, value in sorted(sample.labels.items()))] = sample.value
    assert found, name
    return found


LABELS = {
    "requests_total": {"rule", "method", "code"},
    "request_duration_seconds_count": {"rule"},
    "upstream_duration_seconds_count": {"upstream"},
    "decisions_total": {"answer", "reason"},
    "limits_total": {"limit", "outcome"},
    "challenges_total": {"factor", "outcome"},
    "enrolments": {"factor"},
    "sessions": set(),
    "risk_score_count": set(),
    "loop_lag_seconds_count": set(),
    "events_total": {"event", "severity"},
    "policy_reload_success": set(),
    "policy_reload_timestamp_seconds": set(),
    "store_up": {"store"},
    "build_info": {"version"},
}
"""As docs and dashboards know them; alerts come later."""


@pytest.mark.parametrize("name", LABELS)
async def test_every_metric_is_there_with_its_labels(day: Day, name: str) -> None:
    found = [
        sample
        for family in text_string_to_metric_families(day.metrics)
        for sample in family.samples
        if sample.name == f"sallyport_{name}"
    ]
    assert found
    assert {frozenset(sample.labels) for sample in found} == {frozenset(LABELS[name])}


async def test_metrics_count_what_happened(day: Day) -> None:
    requests = samples(day, "requests_total")  # code, method, rule
    assert requests["200", "GET", "public"] == 1
    assert requests["429", "GET", "counted"] == 1
    assert requests["200", "GET", "counted"] == 2
    assert requests["502", "GET", "away"] == 1
    assert requests["200", "other", "public"] == 1, "methods come from a closed list"
    assert requests["400", "GET", ""] == 1
    assert sum(requests.values()) == len(day.lines)

    decisions = samples(day, "decisions_total")  # answer, reason
    assert {answer for answer, _ in decisions} == set(ANSWERS.values())
    assert {reason for _, reason in decisions} <= set(Reason)
    assert decisions["throttle", "rate_limited"] == 1
    assert decisions["refuse", "no_rule"] == 1
    assert decisions["refuse", "not_allowed"] == 1
    assert decisions["step_up", "proof_too_old"] == 2

    assert samples(day, "limits_total") == {("twice", "allowed"): 2, ("twice", "refused"): 1}
    challenges = samples(day, "challenges_total")
    assert challenges["totp", "passed"] == 1
    assert challenges["totp", "failed"] == 1
    assert challenges["any", "asked"] == 1
    assert samples(day, "enrolments")["totp",] == 1
    assert samples(day, "sessions")[()] == 1, "ann has left, bob is here"
    assert samples(day, "store_up") == {("records",): 1.0}
    assert samples(day, "policy_reload_success") == {(): 1.0}
    assert samples(day, "upstream_duration_seconds_count")["app",] >= 5
    events = samples(day, "events_total")  # event, severity
    assert events["sign_in", "info"] == 2
    assert events["sign_in_failed", "notice"] >= 5
    assert events["sign_in_throttled", "warning"] >= 1


async def test_no_client_can_make_the_metrics_grow(day: Day) -> None:
    before = series(day.metrics)
    for number in range(30):
        await day.gateway.ask(request(b"GET", b"/nowhere/%d" % number, host=b"Host: h%d.test\r\n" % number))
        await day.gateway.ask(request(b"GET", b"/public/%d" % number, b"X-%d: y\r\n" % number))
    after = series((await _ask_admin(day.gateway, "/metrics")).body.decode())
    stood_still = {one for one in after if "loop_late" in one}  # the machine's doing, no client's
    assert after - before - stood_still == set()


def series(metrics: str) -> set[str]:
    """Every name with its labels."""
    return {line.rpartition(" ")[0] for line in metrics.splitlines() if not line.startswith("#")}


# -- probes ------------------------------------------------------------------------------------------------------------


async def test_probes(day: Day) -> None:
    alive = await _ask_admin(day.gateway, "/healthz")
    assert (alive.status, alive.body) == (200, b"ok\n")
    ready = await _ask_admin(day.gateway, "/readyz")
    assert ready.status == 200
    assert json.loads(ready.body) == {"ready": True, "store": "up", "policy": "loaded"}
    metrics = await _ask_admin(day.gateway, "/metrics")
    assert metrics.one("Content-Type").startswith(b"text/plain")


@pytest.mark.parametrize(
    "path",
    ["/", "/metrics/", "/metrics/x", "/healthz/../public/x", "/.sallyport/login", "/.sallyport/api/v1/sessions",
     "/public/x", "/app/x", "/debug", "/admin", "//metrics", "/%6detrics/x", "http://good.test/public/x"],
)  # fmt: skip
async def test_case_122_the_admin_listener_has_nothing_else(day: Day, path: str) -> None:
    day.gateway.upstream.clear()
    answer = await _ask_admin(day.gateway, path, host="good.test")
    assert answer.status in (400, 403, 404)
    assert day.gateway.upstream.requests == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_case_122_probes_are_only_read(day: Day, method: str, path: str) -> None:
    assert (await _ask_admin(day.gateway, path, method)).status == 405


@pytest.mark.parametrize("path", [b"/metrics", b"/healthz", b"/readyz", b"/.sallyport/metrics", b"/.sallyport/readyz"])
async def test_case_122_clients_find_no_probe(day: Day, path: bytes) -> None:
    day.gateway.upstream.clear()
    answer = await day.gateway.ask(request(target=path))
    assert answer.status in (401, 403, 404)
    assert b"sallyport_requests" not in answer.body
    assert day.gateway.upstream.requests == []


# -- the access log ----------------------------------------------------------------------------------------------------

SHOULD = {
    "public": (200, "allow", "public", "public", "app", ""),
    "throttle": (429, "throttle", "rate_limited", "counted", "", ""),
    "refuse": (403, "refuse", "no_rule", "", "", ""),
    "bad": (400, "", "", "", "", ""),
    "away": (502, "allow", "public", "away", "other", ""),
    "sign_in": (401, "sign_in", "no_session", "everything-else", "", ""),
    "form": (303, "sign_in", "no_session", "everything-else", "", ""),
    "resumed": (200, "allow", "granted", "everything-else", "app", "bob"),
    "allow": (200, "allow", "granted", "everything-else", "app", "bob"),
    "not_allowed": (403, "refuse", "not_allowed", "admin", "", "bob"),
    "proven": (200, "allow", "granted", "admin", "app", "ann"),
    "step_up": (303, "step_up", "proof_too_old", "admin", "", "ann"),
    "step_up_api": (401, "step_up", "proof_too_old", "admin", "", "ann"),
    "page": (200, "", "", "", "sallyport", ""),
    "failed": (401, "", "", "", "sallyport", ""),
    "guessed": (429, "", "", "", "sallyport", ""),
}


@pytest.mark.parametrize("name", SHOULD)
async def test_each_kind_of_answer_is_a_line(day: Day, name: str) -> None:
    line = day.line(name)
    assert list(line) == FIELDS
    said = tuple(line[field] for field in ("status", "answer", "reason", "rule", "upstream", "user"))
    assert said == SHOULD[name]
    assert day.answers[name].status == line["status"]
    assert line["address"] == "127.0.0.1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert bool(line["session"]) == bool(line["user"])
    assert (line["upstream_us"] > 0) <= (line["upstream"] != "")
    assert line["sent"] > 0


async def test_a_line_tells_methods_and_sizes(day: Day) -> None:
    assert (day.line("form")["method"], day.line("form")["path"]) == ("POST", "/app/pay")
    assert day.line("form")["received"] == len(f"say={BODY}")
    assert day.line("allow")["path"] == "/app/x", "without its query"
    assert day.line("allow")["host"] == "good.test"


async def test_every_request_has_an_id_of_its_own(day: Day) -> None:
    ids = [line["request_id"] for line in day.lines]
    assert len(set(ids)) == len(ids)
    assert {answer.one("X-Request-Id").decode() for answer in day.answers.values()} <= set(ids)
    assert "" not in ids


# -- events ------------------------------------------------------------------------------------------------------------


async def test_what_mattered_is_an_event(day: Day) -> None:
    counts = {kind: len(day.kinds(kind)) for kind in Kind}
    assert counts[Kind.SIGN_IN] == 2
    assert counts[Kind.SIGN_IN_FAILED] >= 5
    assert counts[Kind.SIGN_IN_THROTTLED] >= 1
    assert counts[Kind.SIGN_OUT] == 1
    assert counts[Kind.STEP_UP_ASKED] == 1
    assert counts[Kind.STEP_UP_FAILED] == 1
    assert counts[Kind.STEP_UP_PASSED] == 1
    assert counts[Kind.FACTOR_ENROLLED] == 1
    assert counts[Kind.BACKUP_CODES_MADE] == 1
    assert counts[Kind.REFUSED] == 2
    assert counts[Kind.THROTTLED] == 1
    assert counts[Kind.REQUEST_REJECTED] == 1
    assert counts[Kind.RESUMED] == 1
    assert counts[Kind.USER_ADDED] == 2
    assert counts[Kind.STARTED] == 1
    assert counts[Kind.FAULT] == 0


async def test_an_event_says_who_where_and_which_request(day: Day) -> None:
    (passed,) = day.kinds(Kind.STEP_UP_PASSED)
    assert (passed.user, passed.address, passed.detail["factor"]) == ("ann", "127.0.0.1", "totp")
    assert passed.session == day.line("again")["session"]
    (throttled,) = day.kinds(Kind.THROTTLED)
    assert throttled.request_id == day.answers["throttle"].one("X-Request-Id").decode()
    assert (throttled.rule, throttled.severity) == ("counted", Severity.NOTICE)
    refused = {event.detail["reason"]: event for event in day.kinds(Kind.REFUSED)}
    assert set(refused) == {"no_rule", "not_allowed"}
    assert refused["not_allowed"].user == "bob"
    assert {event.user for event in day.kinds(Kind.SIGN_IN)} == {"ann", "bob"}
    assert all(event.address and event.request_id for event in day.kinds(Kind.SIGN_IN_FAILED))


async def test_a_name_that_nobody_has_is_not_written_down(day: Day) -> None:
    """People type their password where the name belongs."""
    assert {event.user for event in day.kinds(Kind.SIGN_IN_FAILED)} == {"bob", ""}


# -- what nobody sees --------------------------------------------------------------------------------------------------


def spellings(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    yield secret.replace(" ", "+")
    yield secret.replace("-", "")


async def test_no_secret_is_in_any_log_event_or_metric(day: Day) -> None:
    assert len(day.secrets) >= 20
    written = {
        "access log": json.dumps(day.lines),
        "log": day.logged,
        "events": repr(day.events),
        "metrics": day.metrics,
    }
    assert "bob" in written["access log"]
    assert len(day.logged) > 100
    found = [
        (where, secret)
        for where, text in written.items()
        for secret in day.secrets
        for spelling in spellings(secret)
        if len(spelling) >= 6 and re.search(rf"(?<![0-9A-Za-z]){re.escape(spelling)}(?![0-9A-Za-z])", text)
    ]
    assert found == [], found


async def test_no_secret_is_in_the_database_in_clear(day: Day) -> None:
    """Passwords, tokens and codes are hashed; factor secrets and interrupted requests are sealed."""
    path = Path(day.gateway.app.records.place.path)
    raw = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    assert b"bob@good.test" in raw
    long = [secret for secret in day.secrets if len(secret) > 8]
    assert [secret for secret in long for one in spellings(secret) if one.encode() in raw] == []
    await asyncio.sleep(0)


async def test_objects_hide_what_they_hold(day: Day) -> None:
    """A repr may end up in a traceback."""
    app = day.gateway.app
    held = (
        app.settings,
        app.keys,
        app.keys.sealer,
        app.keys.mac,
        app.keys.signer,
        app.sessions,
        app.people.stepups,
        app.users,
    )
    text = " ".join(map(repr, held))
    for file in app.settings.keys.iterdir():
        assert file.read_text().strip() not in text
    assert not [secret for secret in day.secrets if secret in text]
