"""`python -m gateway` as an operator runs it: a process of its own in a folder of its own.

It is forked from one that has imported what it needs (`forks`), unless it is to do everything `anew`.
Permissions mean nothing to root's capabilities, so where the tests run as root the gateway goes without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gateway import cli
from tests.house import forks
from tests.rig.ports import free_port

ROOT = forks.ROOT
PATIENCE = 30.0
"""Seconds until something that never happens is called failed; no test waits for it."""


POLICY = """\
rules:
  - name: public
    match: {paths: [/public/**]}
    access: public
    upstream: app
  - name: admin
    match: {paths: [/admin/**]}
    access: {groups: [admins]}
    step_up: {level: aal2, factors: [totp, backup_code], max_age: 10m}
    upstream: app
    audience: app-admin
  - name: everything-else
    access: authenticated
    upstream: app
"""


Process = asyncio.subprocess.Process | forks.Forked


class Said(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    err: str


class Home:
    """A folder with config.yaml, policies/ and data/, and two ports that were free a moment ago."""

    def __init__(self, folder: Path, upstream: int) -> None:
        self.folder = folder
        self.environ: dict[str, str] = {}
        """Further variables of its environment."""
        self.anew = False
        """Whether it imports everything itself: where it is about how much it takes to be there."""
        self.port, self.admin_port = free_port(), free_port()
        self.config: dict[str, Any] = {
            "listen": f"127.0.0.1:{self.port}",
            "admin_listen": f"127.0.0.1:{self.admin_port}",
            "public_url": f"http://127.0.0.1:{self.port}",
            "upstreams": {"app": {"url": f"http://127.0.0.1:{upstream}"}},
            "log": {"access": "access.log"},
        }
        self.write(POLICY)
        self.write_config()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def write(self, policy: str, name: str = "policies/rules.yaml") -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(policy)

    def write_config(self, text: str = "", **entries: Any) -> None:
        """`entries` replace top-level entries; `text` replaces all of it."""
        self.config |= entries
        (self.folder / "config.yaml").write_text(text or yaml.safe_dump(self.config))

    def state(self) -> dict[str, tuple[int, bytes]]:
        """Every file with its mode and content."""
        paths = [self.folder, *sorted(self.folder.rglob("*"))]
        return {
            str(path.relative_to(self.folder)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in paths
        }

    async def start(self, *arguments: str, stdin: bytes | None = None) -> Process:
        """`python -m gateway …` in this folder."""
        # What it compiles on its way stays for the next: a third of what a start costs.
        left_out = ("SALLYPORT_", "PYTHONDONTWRITEBYTECODE")
        environ = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        obey = os.geteuid() == 0
        if not self.anew and not any(name.startswith(("LD_", "PYTHON")) for name in self.environ):
            environ |= self.environ
            return await forks.start(*arguments, folder=self.folder, environ=environ, stdin=stdin, obey=obey)
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", *arguments,
            cwd=self.folder, env=environ | {"PYTHONPATH": str(ROOT)} | self.environ,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            preexec_fn=forks.obey_permissions if obey else None,
        )  # fmt: skip

    async def call(self, *arguments: str, stdin: bytes | None = None) -> Said:
        """Run a command to its end."""
        process = await self.start(*arguments, stdin=stdin)
        try:
            async with asyncio.timeout(PATIENCE):
                out, err = await process.communicate(stdin)
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
            raise AssertionError(f"{arguments} does not end: {err.decode()}") from None
        code = process.returncode
        assert code is not None
        return Said(code, out.decode(), err.decode())

    async def ask(self, *arguments: str) -> Said:
        """What `call` would say, of this process."""
        return await ask(self.folder, *arguments)

    async def refuses(self, *arguments: str) -> str:
        """`run` ends with 2, one plain message, no traceback, and leaves everything as it was; the message."""
        before = self.state()
        said = await self.call(*(arguments or ("run",)))
        assert said.code == 2, said
        assert "Traceback" not in said.err, said.err
        assert not re.search(r'File ".*", line|Error\(|Exception', said.err), said.err
        assert said.out == ""
        after = self.state()
        changed = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
        assert not changed, f"a refused start changed {changed}"
        assert not await self.listens()
        return said.err

    async def listens(self) -> bool:
        """Whether anybody answers on one of our ports."""
        for port in (self.port, self.admin_port):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return True
        return False

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Serving]:
        """A gateway that is ready; SIGTERM at the end where it is still there."""
        process = await self.start("run")
        one = Serving(self, process)
        try:
            await one.until("listening on")
            yield one
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await one.ended()


class Serving:
    """A gateway process and what it said."""

    def __init__(self, home: Home, process: Process) -> None:
        self.home = home
        self.process = process
        self.err = ""

    async def until(self, words: str, times: int = 1) -> None:
        """Wait until it has said `words` on standard error, so many times."""
        async with asyncio.timeout(PATIENCE):
            while self.err.count(words) < times:
                line = await self.process.stderr.readline()  # type: ignore[union-attr]
                assert line, f"ended without saying {words!r}: {self.err}"
                self.err += line.decode()

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        try:
            async with asyncio.timeout(PATIENCE):
                _, err = await self.process.communicate()
        except TimeoutError:
            self.process.kill()
            _, err = await self.process.communicate()
            raise AssertionError(f"does not end: {self.err}{err.decode()}") from None
        self.err += err.decode()
        code = self.process.returncode
        assert code is not None
        return code


async def ask(folder: Path, *arguments: str) -> Said:
    """Run a command to its end in `folder` and in this process, which has imported everything already: for what is not
    about how it is started."""

    def run() -> Said:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.main(arguments)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        return Said(code, out.getvalue(), err.getvalue())

    return await asyncio.to_thread(run)


@contextlib.contextmanager
def home(upstream: int = 9) -> Iterator[Home]:
    """A home of its own, gone afterwards whatever its permissions have become."""
    folder = Path(tempfile.mkdtemp(prefix="sallyport-home-"))
    try:
        yield Home(folder, upstream)
    finally:
        for path in (folder, *folder.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(folder)


async def until(condition: Any, what: str = "") -> None:
    """Wait until the coroutine function or function `condition` says yes."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = condition()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return
            await asyncio.sleep(0.05)
