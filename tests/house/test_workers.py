"""Several workers, as an operator runs them: shared listeners, a worker that dies, and how they stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.house.process import ROOT, Home, Serving, home, until
from tests.rig.client import RawClient
from tests.rig.gateway import request
from tests.rig.upstream import RecordingUpstream

POLICY = "rules: [{name: public, access: public, upstream: app}]\n"


@pytest.fixture
def shared(upstream: RecordingUpstream) -> Iterator[Home]:
    with home(upstream.port) as one:
        one.write(POLICY)
        one.admin_port = two_ports()
        admin = f"127.0.0.1:{one.admin_port}"
        one.write_config(admin_listen=admin, store={"records": "none", "shared": "none"}, workers=2)
        yield one


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[RecordingUpstream]:
    service = RecordingUpstream()
    await service.start()
    yield service
    await service.stop()


def two_ports() -> int:
    """The first of two neighbours that were free a moment ago; below those that connections are given."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as next_one:
            one.bind(("127.0.0.1", port))
            next_one.bind(("127.0.0.1", port + 1))
            return port
    raise AssertionError("no two ports are free")


def children(serving: Serving) -> list[int]:
    listed = Path(f"/proc/{serving.process.pid}/task/{serving.process.pid}/children").read_text()
    return sorted(int(number) for number in listed.split())


async def asked(port: int) -> int:
    async with await RawClient.connect(port) as client:
        await client.send(request(target=b"/x", host=b"Host: 127.0.0.1:%d\r\n" % port))
        return (await client.response()).status


async def both_up(serving: Serving) -> list[int]:
    """Process ids, once both have said that they listen."""
    await serving.until("listening on", 2)
    return children(serving)


async def test_workers_share_the_port_and_have_a_probe_each(shared: Home) -> None:
    async with shared.serving() as serving:
        workers = await both_up(serving)
        assert len(workers) == 2
        assert [await asked(shared.port) for _ in range(40)] == [200] * 40
        served = []
        for number in range(2):
            async with await RawClient.connect(shared.admin_port + number) as client:
                await client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                text = (await client.response()).body.decode()
            served += [float(one) for one in re.findall(r"^sallyport_requests_total\{.*\} (.*)$", text, re.MULTILINE)]
        assert sum(served) == 40
        assert len(served) == 2, "the kernel shares connections out"
    assert serving.process.returncode == 0
    assert not await shared.listens()


async def test_a_worker_that_is_killed_is_missed_by_nobody_for_long(shared: Home) -> None:
    async with shared.serving() as serving:
        first, second = await both_up(serving)
        os.kill(first, signal.SIGKILL)
        await serving.until("was killed by SIGKILL")
        assert [await asked(shared.port) for _ in range(10)] == [200] * 10
        await serving.until("listening on", 3)
        after = children(serving)
        assert len(after) == 2
        assert second in after
        assert first not in after
        assert [await asked(shared.port) for _ in range(10)] == [200] * 10
    assert serving.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stopping_is_handed_on_and_waited_for(shared: Home, number: signal.Signals) -> None:
    async with shared.serving() as serving:
        workers = await both_up(serving)
        serving.process.send_signal(number)
        assert await serving.ended() == 0
        assert serving.err.count("stopping: finishing what is on its way") == 2
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


DEAF = """
import os
import time
from types import SimpleNamespace

from gateway.commands.workers import Workers

def deaf(settings, alive):
    os.write(1, b".")
    time.sleep(60)

raise SystemExit(Workers(SimpleNamespace(workers=2, admin_listen=None), deaf).run())
"""


async def test_a_worker_that_is_told_before_it_listens_has_done_as_it_was_told() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", DEAF, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readexactly(2) == b".."
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0


async def test_workers_do_not_outlive_their_parent(shared: Home) -> None:
    async with shared.serving() as serving:
        workers = await both_up(serving)
        serving.process.kill()
        await until(lambda: not any(Path(f"/proc/{worker}/exe").exists() for worker in workers))
        assert not await shared.listens()


async def test_a_unix_socket_is_shared_too(shared: Home) -> None:
    path = shared.folder / "in.sock"
    shared.write_config(listen=[f"unix:{path}", f"127.0.0.1:{shared.port}"])
    async with shared.serving() as serving:
        first, _ = await both_up(serving)
        os.kill(first, signal.SIGKILL)
        await serving.until("was killed by SIGKILL")
        for _ in range(4):
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, str(path))
            async with RawClient(sock) as client:
                await client.send(request())
                assert (await client.response()).status == 200
    assert serving.process.returncode == 0
    assert not path.exists()


AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, "-m", "gateway", "run"])
"""


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_restart_behind_a_socket_of_systemd_refuses_nobody(shared: Home, workers: int) -> None:
    shared.write_config(listen="systemd", workers=workers)
    with socket.create_server(("127.0.0.1", shared.port)) as sock:

        async def start() -> Serving:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", AS_SYSTEMD, str(sock.fileno()),
                cwd=shared.folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, pass_fds=[sock.fileno()],
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            return Serving(shared, process)

        one = await start()
        await one.until("listening on", workers)
        assert await asked(shared.port) == 200
        one.process.terminate()
        assert await one.ended() == 0
        waiting = asyncio.create_task(asked(shared.port))  # connects, and waits for the next
        await asyncio.sleep(0)
        two = await start()
        assert await waiting == 200
        await two.until("listening on", workers)
        two.process.terminate()
        assert await two.ended() == 0


async def test_a_port_of_somebody_else_is_not_shared(shared: Home) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", shared.port))
        other.listen()
        said = await shared.call("run")
    assert said.code == 2
    assert said.err.startswith(f"cannot listen on 127.0.0.1:{shared.port}: ")


async def test_what_is_not_fit_to_run_with_ends_all(shared: Home) -> None:
    shared.write("rules: [{name: public, acces: public, upstream: app}]\n")
    said = await shared.call("run")
    assert said.code == 2
    assert "acces" in said.err
    assert "Traceback" not in said.err


async def test_stores_that_cannot_be_shared_are_told_with_their_line(shared: Home) -> None:
    shared.write_config(store={"records": "sqlite:data/x.db"})
    for command in ("check", "run"):
        said = await shared.call(command)
        assert said.code == (1 if command == "check" else 2)
        (line,) = [line for line in (said.out + said.err).splitlines() if "workers" in line]
        assert re.match(r"config\.yaml:\d+: `workers`: 2 workers would each count by themselves", line)
        assert "store: {records: none, shared: none}" in line
