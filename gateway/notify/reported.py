"""What a provider posts to us."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.core.errors import Broken


def json_object(text: bytes) -> Mapping[str, Any]:
    """The JSON object in `text`. Raises `Broken` for anything else."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise Broken("not an object")
    return found
