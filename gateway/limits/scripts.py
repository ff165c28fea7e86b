"""The Lua twins, put together: what the shared store runs.

Each algorithm is one file beside its Python step; `spend.lua` walks a batch of requests with all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_HERE = Path(__file__).parent


def script(name: str, algorithms: Iterable[str]) -> str:
    """The text of script `name`, which finds `steps[algorithm]` and `backoff`."""
    parts = ["local steps = {}"]
    parts += [f"steps[{each!r}] = (function()\n{_read(each)}\nend)()" for each in algorithms]
    parts.append(f"local backoff = (function()\n{_read('backoff')}\nend)()")
    return "\n".join([*parts, _read(name)])


def _read(name: str) -> str:
    return (_HERE / f"{name}.lua").read_text("utf-8")
