"""The data plane alone: `store: {records: none}`. Nobody is known, nothing is kept, and nothing else is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.commands.check import check
from tests.house.process import ROOT, home
from tests.rig.client import RawClient
from tests.rig.gateway import Gateway, request, running
from tests.rig.upstream import RecordingUpstream

POLICY = """
rules:
  - {name: closed, match: {paths: [/closed/**]}, access: nobody}
  - name: counted
    match: {paths: [/counted/**], methods: [GET]}
    access: public
    limits: [{name: few, key: address, rate: 2/m}]
    upstream: app
  - {name: near, match: {networks: [127.0.0.0/8]}, access: public, upstream: app}
"""
NAVIGATES = b"Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n"
KNOWS_PEOPLE = ("sqlalchemy", "aiosqlite", "aiohttp", "argon2", "jinja2", "pyotp", "segno", "cryptography",
                "gateway.people", "gateway.identity.sessions", "gateway.mfa.stepup", "prometheus_client")  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alone(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    config = {"store": {"records": "none"}}
    async with running(tmp_path_factory.mktemp("alone"), policy=POLICY, config=config) as gateway:
        yield gateway


@pytest.mark.asyncio(loop_scope="module")
async def test_requests_are_carried_and_nobody_is_vouched_for(alone: Gateway) -> None:
    await alone.mark()
    spoofed = b"X-Forwarded-User: root\r\nSallyport-Assertion: x.y.z\r\nRemote-User: root\r\n"
    answer = await alone.ask(request(target=b"/x?q=1", head=spoofed, cookie=b"sallyport=" + b"a" * 43 + b"; theirs=1"))
    assert answer.status == 200
    seen = alone.upstream.only
    assert seen.target == b"/x?q=1"
    assert not {b"x-forwarded-user", b"sallyport-assertion", b"remote-user"} & {name.lower() for name in seen.names}
    assert seen.one("Cookie") == b"theirs=1"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("target", "head", "status", "code"),
    [
        (b"/closed/x", b"", 403, "ERR-NOT-ALLOWED"),
        (b"/closed/x", NAVIGATES, 403, "ERR-NOT-ALLOWED"),
        (b"/.sallyport/login", b"", 403, "ERR-NO-RULE"),
        (b"/.sallyport/login", NAVIGATES, 403, "ERR-NO-RULE"),
        (b"/.sallyport/static/style.css", b"", 403, "ERR-NO-RULE"),
        (b"/.sallyport/api/v1/sessions", b"", 403, "ERR-NO-RULE"),
        (b"/x/../.sallyport/jwks.json", b"", 403, "ERR-NO-RULE"),
        (b"/x\\y", b"", 400, "ERR-BAD-TARGET"),
    ],
)
async def test_what_is_closed_is_refused_without_a_page(
    alone: Gateway, target: bytes, head: bytes, status: int, code: str
) -> None:
    await alone.mark()
    answer = await alone.ask(request(target=target, head=head))
    assert (answer.status, answer.one("Content-Type")) == (status, b"application/problem+json")
    assert json.loads(answer.body)["code"] == code
    assert alone.upstream.requests == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("cookie", ["sallyport", "sallyport-browser", "sallyport-device", "sallyport-resume"])
async def test_no_cookie_means_anything(alone: Gateway, cookie: str) -> None:
    await alone.mark()
    both = f"{cookie}={'a' * 43}; sallyport-browser={'b' * 43}".encode()
    assert (await alone.ask(request(target=b"/x", cookie=both))).status == 200
    form = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n" + NAVIGATES
    assert (await alone.ask(request(b"POST", b"/x", form, b"a=b", cookie=both))).status == 200
    assert b"Cookie" not in b"".join(name for one in alone.upstream.requests for name, _ in one.headers)


@pytest.mark.asyncio(loop_scope="module")
async def test_limits_count_in_this_process(alone: Gateway) -> None:
    answers = [(await alone.ask(request(target=b"/counted/x"))).status for _ in range(3)]
    assert answers == [200, 200, 429]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_admin_listener_says_so(alone: Gateway) -> None:
    async def admin(path: str) -> bytes:
        async with await RawClient.connect(alone.admin_port) as client:
            await client.send(f"GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n".encode())
            return (await client.response()).body

    assert json.loads(await admin("/readyz")) == {"ready": True, "store": "none", "policy": "loaded"}
    metrics = (await admin("/metrics")).decode()
    assert 'sallyport_events_total{event="started",severity="info"} 1.0' in metrics
    assert "sallyport_store_up{" not in metrics


@pytest.mark.asyncio(loop_scope="module")
async def test_a_rule_about_people_is_no_reload(alone: Gateway, tmp_path: Path) -> None:
    book = alone.app.book
    file = alone.app.settings.policies / "rig.yaml"
    file.write_text(POLICY.replace("access: public", "access: authenticated"))
    await alone.app.reload_policies()
    file.write_text(POLICY)
    assert alone.app.book is book
    assert alone.app._readiness()[1]["policy"].startswith("refused: ")


@pytest.mark.asyncio(loop_scope="module")
async def test_nothing_is_kept(alone: Gateway) -> None:
    folder = alone.app.settings.policies.parent
    assert sorted(path.name for path in folder.iterdir()) == ["access.log", "config.yaml", "policies"]


async def test_other_proxies_may_ask(tmp_path: Path) -> None:
    config = {"store": {"records": "none"}, "trusted_proxies": ["127.0.0.1/32"]}
    policy = POLICY.replace("127.0.0.0/8", "192.0.2.0/24")
    async with running(tmp_path, policy=policy, config=config) as gateway:
        for target, status in ((b"/x", 200), (b"/closed/x", 403), (b"/.sallyport/login", 403)):
            asked = b"X-Original-URL: http://good.test%b\r\nX-Original-Method: GET\r\n" % target
            way = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
            answer = await gateway.ask(request(target=b"/.sallyport/auth/nginx", head=asked + way + NAVIGATES))
            assert answer.status == status
            assert answer.all("X-Forwarded-User") == []


async def test_as_a_process_it_is_small_and_its_events_are_lines_of_json() -> None:
    upstream = RecordingUpstream()
    await upstream.start()
    with home(upstream.port) as here:
        here.write(POLICY)
        here.write_config(store={"records": "none", "shared": "memory"})
        here.anew = True
        async with here.serving() as serving:
            for raw in (b"/x", b"/closed/\xc2\x9b31m", b"/closed/2"):
                async with await RawClient.connect(here.port) as client:
                    await client.send(b"GET " + raw + b" HTTP/1.1\r\nHost: x\r\n\r\n")
                    await client.response()
            await serving.until('"refused"')
            status = Path(f"/proc/{serving.process.pid}/status").read_text()
        rss = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))
        assert rss <= 60e6
        assert not here.data.exists()
    await upstream.stop()
    events = [json.loads(line) for line in serving.err.splitlines() if line.startswith("{")]
    assert [event["event"] for event in events if event["event"] != "request_rejected"][0::2] == ["started", "stopped"]
    refused = next(event for event in events if event["event"] == "refused")
    assert (refused["severity"], refused["rule"], refused["address"]) == ("notice", "closed", "127.0.0.1")
    assert refused["time"].endswith("Z")
    assert "\x9b" not in serving.err


def test_nothing_that_knows_people_is_loaded() -> None:
    script = f"""
import asyncio, sys, pathlib, tempfile
from gateway import settings
from gateway.app import App
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "p.yaml").write_text({POLICY!r})
(folder / "config.yaml").write_text('''
listen: 127.0.0.1:0
admin_listen: 127.0.0.1:0
upstreams: {{app: {{url: "http://127.0.0.1:9"}}}}
policies: p.yaml
store: {{records: none}}
log: {{access: ""}}
''')
async def main():
    app = App(settings.load(folder / "config.yaml", {{}}))
    await app.start()
    await app.stop()
asyncio.run(main())
print(*[name for name in {KNOWS_PEOPLE!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# -- what cannot be ----------------------------------------------------------------------------------------------------

LEAST = "upstreams: {app: {url: http://127.0.0.1:9000}}\n"
NEEDS = "this is about people who sign in; remove it, or keep `store.records`"


def problems(folder: Path, config: str, policy: str) -> list[str]:
    """What `sallyport check` finds, without the folder."""
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / "p.yaml").write_text(policy)
    (folder / "config.yaml").write_text(LEAST + config)
    found, _ = check(folder / "config.yaml", {})
    return [str(problem).replace(f"{folder}/", "") for problem in found]


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ("identity: {local: {}}", "identity"),
        ("sessions: {idle: 5m}", "sessions"),
        ("mfa: {totp: {issuer: X}}", "mfa"),
        ("mfa: {totp: null}", "mfa"),
        ("risk: {weights: {agent: 0.1}}", "risk"),
        ("interrupted: {body: 1k}", "interrupted"),
    ],
)
def test_settings_about_people_are_refused(tmp_path: Path, entry: str, key: str) -> None:
    assert problems(tmp_path, f"store: {{records: none}}\n{entry}\n", POLICY) == [f"config.yaml:3: `{key}`: {NEEDS}"]
    assert problems(tmp_path, f"{entry}\n", POLICY) == []


def test_sign_in_without_counters_is_refused(tmp_path: Path) -> None:
    nothing = "rules: [{name: a, access: nobody}]\n"
    (found,) = problems(tmp_path, "store: {shared: none}\n", nothing)
    assert found.startswith("config.yaml:2: `store`: `shared: none` goes with `records: none`")
    assert problems(tmp_path, "store: {records: none, shared: none}\n", nothing) == []


RULE = "rules:\n  - name: a\n    upstream: app\n"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("    access: authenticated\n", ["p.yaml:4: rule `a` asks who somebody is"]),
        ("    access: {groups: [admins]}\n", ["p.yaml:4: rule `a` asks who somebody is"]),
        ("    access: {not: {users: [eve]}}\n", ["p.yaml:4: rule `a` asks who somebody is"]),
        ("    match: {users: [ann]}\n    access: public\n", ["p.yaml:4: `match.users` is about callers"]),
        ("    match: {levels: [aal2]}\n    access: nobody\n", ["p.yaml:4: `match.levels` is about callers"]),
        ("    access: public\n    step_up: {level: aal2}\n", ["p.yaml:5: `step_up` has no effect"]),
        ("    access: public\n    risk: {refuse_at: 0.5}\n", ["p.yaml:5: `risk` has no effect"]),
        (
            "    access: public\n    limits: [{name: l, key: address, rate: 1/s}]\n",
            ["p.yaml:5: rule `a` has limits, but `store.shared` is none"],
        ),
        ("    match: {networks: [10.0.0.0/8], headers: {X-A: b}, time: {to: '12:00'}}\n    access: public\n", []),
    ],
)
def test_rules_that_need_a_store_are_refused(tmp_path: Path, rule: str, said: list[str]) -> None:
    found = problems(tmp_path, "store: {records: none, shared: none}\n", RULE + rule)
    assert len(found) == len(said), found
    assert all(one.startswith(f"policies/{start}") for one, start in zip(found, said, strict=True)), found
    assert all("(" in one for one in found), "each comes with a suggestion"


def test_the_rules_are_checked_though_the_configuration_is_wrong(tmp_path: Path) -> None:
    found = problems(tmp_path, "store: {records: none}\nbogus: 1\n", RULE + "    access: authenticated\n")
    assert [one.partition(":")[0] for one in found] == ["config.yaml", "policies/p.yaml"]


async def test_commands_about_people_say_there_are_none() -> None:
    with home() as here:
        here.write(POLICY)
        here.write_config(store={"records": "none"})
        said = await here.refuses("user", "list")
    assert "`store.records` is none" in said
