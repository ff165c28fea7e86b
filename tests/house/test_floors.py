"""The floors of the house: imports go strictly down, siblings never meet, and what is optional is loaded when used.

Imports for types alone count like any other: a room that has to name another's types knows that room.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = ROOT / "gateway"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("crypto", "policy", "store", "notify"),
    ("identity", "limits", "risk", "mfa", "audit"),
    ("gate",),
    ("wire", "web"),
    ("settings", "catalog"),
    ("control", "people", "post", "services", "sharing"),
    ("app",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
"""From the ground up. Rooms on one floor never import each other."""

FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

OPTIONAL = (
    "maxminddb",
    "phonenumbers",
    "pyotp",
    "segno",
    "prometheus_client",
    "argon2",
    "webauthn",
    "redis",
    "jwt",
    "jinja2",
    "sqlalchemy",
    "aiosmtplib",
    "aiosqlite",
    "aiohttp",
    "cryptography",
)
"""Loaded when somebody needs them: a start should wait for none, and an idle gateway should hold none."""


class Import(NamedTuple):
    """`importer` (file:line) in `room` imports `module` of `other`."""

    where: str
    room: str
    other: str
    module: str


def imports() -> Iterator[Import]:
    """Every import of ours by ours, wherever in a file it stands."""
    for path in sorted(GATEWAY.rglob("*.py")):
        room = path.relative_to(GATEWAY).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            for module in _modules(node):
                parts = module.split(".")
                if parts[0] == "gateway" and len(parts) > 1:
                    yield Import(where, room, parts[1], module)


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        if node.level:
            return ["gateway.relative.import"]
        if node.module == "gateway":
            return [f"gateway.{alias.name}" for alias in node.names if alias.name != "__version__"]
        return [node.module or ""]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "import_module":
        first = node.args[0]
        text = first.values[0] if isinstance(first, ast.JoinedStr) else first
        return [str(text.value) + "x"] if isinstance(text, ast.Constant) else ["gateway.unknown"]
    return []


def test_every_room_has_a_floor() -> None:
    rooms = {path.name.removesuffix(".py") for path in GATEWAY.iterdir() if path.suffix == ".py" or path.is_dir()}
    rooms -= {"__init__", "__pycache__"}
    assert {room for room in rooms if not room.endswith(".typed")} == set(FLOOR_OF)


def test_imports_go_strictly_down() -> None:
    found = list(imports())
    assert len(found) > 300, "the imports were not found"
    wrong = [
        f"{one.where}: {one.room} imports {one.module}"
        for one in found
        if one.room not in ("__init__", one.other) and FLOOR_OF.get(one.other, 99) >= FLOOR_OF[one.room]
    ]
    assert wrong == []


def test_the_package_itself_imports_nothing() -> None:
    """`gateway.core` costs no more than itself."""
    assert [one for one in imports() if one.room == "__init__"] == []


@pytest.mark.parametrize("room", ["core", "policy", "limits"])
def test_rooms_that_only_think_know_no_socket_and_no_database(room: str) -> None:
    outside = {"asyncio.streams", "socket", "aiohttp", "sqlalchemy", "aiosqlite", "httptools", "uvloop"}
    for path in sorted((GATEWAY / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & outside, path


@pytest.mark.parametrize("module", ["gateway.app", "gateway.commands.run", "gateway.cli"])
def test_what_is_optional_is_not_loaded_at_start(module: str) -> None:
    script = f"import sys, {module}; print(*[name for name in {OPTIONAL!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_command_line_loads_no_room_before_it_is_told_what_to_do() -> None:
    script = "import sys, gateway.cli; print(*sorted(name for name in sys.modules if name.startswith('gateway.')))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in done.stdout.split()}
    assert rooms <= {"cli", "core"}


def test_the_library_of_security_keys_is_loaded_only_where_they_are_configured() -> None:
    script = (
        "import sys, gateway.people, gateway.web.routes; print([n for n in ('webauthn', 'cbor2') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
