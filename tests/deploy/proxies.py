"""Real proxies, run with the very configuration that docs/deploy tells people to copy; only the ports are others."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.rig.client import PATIENCE
from tests.rig.ports import free_port

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "deploy"
HOST = "app.example.com"
ORIGIN = f"http://{HOST}"

NGINX = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/app.conf;
}}
"""
CADDY = "{\n\tadmin off\n\tauto_https off\n}\n"


def block(page: str, language: str) -> str:
    """The first block in `language` of a page of docs/deploy."""
    found = re.search(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    assert found, f"{page} shows no {language}"
    return found[1]


@asynccontextmanager
async def nginx(folder: Path, sallyport: int, service: int) -> AsyncIterator[int]:
    """nginx as docs/deploy/nginx.md has it; its port."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin") or pytest.skip("nginx is not here")
    port = free_port()
    text = _replaced(
        block("nginx.md", "nginx"),
        ("server 127.0.0.1:8080;", f"server 127.0.0.1:{sallyport};"),
        ("server 127.0.0.1:9000;", f"server 127.0.0.1:{service};"),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
    )
    (folder / "app.conf").write_text(text)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    async with _running(port, program, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")):
        yield port


@asynccontextmanager
async def caddy(folder: Path, sallyport: int, service: int) -> AsyncIterator[int]:
    """Caddy as docs/deploy/caddy.md has it; its port."""
    program = shutil.which("caddy") or pytest.skip("Caddy is not here")
    port = free_port()
    text = block("caddy.md", "caddyfile").replace("127.0.0.1:8080", f"127.0.0.1:{sallyport}")
    text = _replaced(
        text,
        ("reverse_proxy 127.0.0.1:9000", f"reverse_proxy 127.0.0.1:{service}"),
        (f"{HOST} {{", f"http://{HOST}:{port} {{\n\tbind 127.0.0.1"),
    )
    (folder / "Caddyfile").write_text(CADDY + text)
    home = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    command = (program, "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile"))
    async with _running(port, *command, environment=home):
        yield port


def _replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@asynccontextmanager
async def _running(port: int, *command: str, environment: dict[str, str] | None = None) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env=environment
    )
    said: list[bytes] = []

    async def listen() -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            said.append(line)

    listening = asyncio.create_task(listen())
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                assert process.returncode is None, b"".join(said).decode()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    await writer.wait_closed()
                    break
                except OSError:
                    await asyncio.sleep(0.02)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await listening
