"""Real services of other makers that tell how they read a path.

Each answers every request with two lines: `admin` where its own router takes the path for `/admin` or something below
it, else `other`; then the path as it shows it to an application. They listen on ports the system picks.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
NODE_MODULES = ROOT / "build" / "node" / "node_modules"

NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port};
        location / {{ return 200 "other\\n$uri"; }}
        location = /admin {{ return 200 "admin\\n$uri"; }}
        location /admin/ {{ return 200 "admin\\n$uri"; }}
    }}
}}
"""

NAMES = ("nginx", "starlette", "flask", "express")


class NotHere(Exception):
    """A service cannot be started on this machine."""


@contextmanager
def running(name: str, folder: Path) -> Iterator[int]:
    """Start the service `name`; its port on 127.0.0.1. Raises `NotHere`, or RuntimeError when it does not start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    process = subprocess.Popen(
        _command(name, folder, port),
        cwd=ROOT,
        env=os.environ | {"NODE_PATH": str(NODE_MODULES)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_for(port, process)
        yield port
    finally:
        process.terminate()
        try:
            process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _wait_for(port: int, process: subprocess.Popen[str]) -> None:
    """Until it accepts a connection. Raises RuntimeError."""
    for _ in range(200):
        if process.poll() is not None:
            raise RuntimeError(f"it does not start: {process.communicate()[1][-500:]}")
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("it does not listen")


def _command(name: str, folder: Path, port: int) -> list[str]:
    if name == "nginx":
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        if nginx is None:
            raise NotHere("nginx is not installed (Debian: nginx)")
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
        return [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    if name == "express":
        node = shutil.which("node")
        if node is None or not (NODE_MODULES / "express").is_dir():
            raise NotHere("Express is not installed (scripts/system-parts test puts it into build/node)")
        return [node, str(HERE / "express.js"), str(port)]
    server = "uvicorn" if name == "starlette" else "gunicorn"
    if missing := [module for module in (name, server) if find_spec(module) is None]:
        raise NotHere(f"{', '.join(missing)} cannot be imported (pip install --editable .[test])")
    if server == "uvicorn":
        options = ["--port", str(port), "--log-level", "error", "--no-access-log", "--lifespan", "off"]
    else:
        options = ["--bind", f"127.0.0.1:{port}", "--threads", "8", "--keep-alive", "60", "--log-level", "error"]
        options += ["--worker-tmp-dir", str(folder), "--no-control-socket"]
    return [sys.executable, "-m", server, *options, f"tests.attacks.origins.{name}_service:app"]
