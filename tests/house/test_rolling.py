"""Rolling restarts lose nothing: the short run. `make soak` is the whole one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import jwt
import pytest
import uvloop

from tests.house import rolling
from tests.rig.gateway import request, running

_TIMELESS = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
"""The clock of the rig is moved by hand."""


@pytest.fixture(scope="session")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    policy: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return policy


async def test_nothing_is_lost_over_four_restarts() -> None:
    run = await rolling.run(
        restarts=4, rate=500.0, clients=40, sockets=20, uploads=4, delay=0.6, every=0.1, pause=0.3
    )  # fmt: skip
    assert run.failures == []
    assert run.count["restarts"] == 4
    assert run.count["requests"] > 2_000
    assert run.count["uploads"] > 10
    assert run.count["sockets closed with 1001"] >= 20, "each of them was on a gateway that went"
    assert run.count["sockets opened"] == 20 + run.count["sockets closed with 1001"], "and came back"


async def test_policies_swapped_under_load_are_never_mixed_and_lose_nothing(tmp_path: Path) -> None:
    """A header for the service and the audience of the assertion come from one rule: they always agree."""
    swapped = asyncio.Event()

    def policy(version: int) -> str:
        return (
            "rules:\n  - name: all\n    access: authenticated\n    upstream: app\n"
            f"    headers: {{X-Version: v{version}}}\n    audience: v{version}\n"
        )

    async with running(tmp_path, policy=policy(0)) as gateway:
        cookie = await gateway.sign_in("bob")
        raw = request(target=b"/app/x", cookie=cookie)
        served = 0

        async def visit() -> None:
            nonlocal served
            async with await gateway.connect() as client:
                while not swapped.is_set():
                    await client.send(raw)
                    answer = await client.response()
                    assert (answer.status, answer.all("Connection")) == (200, [])
                    served += 1

        async def swap() -> None:
            for version in range(1, 21):
                (tmp_path / "policies" / "rig.yaml").write_text(policy(version))
                await gateway.app.reload_policies()
                gateway.app.keys.rotate_signing(overlap=0.0)
                gateway.clock.advance(1.0)
                gateway.app.keys.signer.refresh()
                gateway.app.wire.identity_headers.forget()
                before = served
                while served < before + 10:
                    await asyncio.sleep(0)
            swapped.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(swap())
            for _ in range(8):
                group.create_task(visit())
        keys = jwt.PyJWKSet.from_dict(gateway.app.keys.signer.jwks())
        published = {key.key_id: key for key in keys.keys}
        seen = set()
        for sent in gateway.upstream.requests:
            token = sent.one("Sallyport-Assertion").decode()
            claims = jwt.decode(token, options={"verify_signature": False})
            assert claims["aud"].encode() == sent.one("X-Version")
            seen.add(claims["aud"])
            key = published.get(jwt.get_unverified_header(token)["kid"])
            if key is not None:
                jwt.decode(token, key.key, algorithms=["ES256"], audience=claims["aud"], options=_TIMELESS)
        assert len(seen) >= 20
        assert len(gateway.upstream.requests) == served
