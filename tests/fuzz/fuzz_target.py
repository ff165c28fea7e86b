"""The target normaliser: what passes has one meaning, for us and for whoever reads it after us."""

from __future__ import annotations

import re

from gateway.wire.target import BadTarget, normalise
from tests.wire.services import decode_last, nginx, starlette

_ORIGIN_FORM = re.compile(rb"/[!\"$->@-\[\]-~]*(?:\?[!\"$-~]*)?")


def one(data: bytes) -> None:
    try:
        found = normalise(data)
    except BadTarget:
        return
    assert _ORIGIN_FORM.fullmatch(found.raw), found
    assert normalise(found.raw) == found
    assert found.raw.partition(b"?")[2].decode("ascii") == found.query
    parts = found.path.split("/")
    assert "" not in parts[1:-1], found
    assert not {".", ".."} & set(parts), found
    assert not any(sign in "\\\x7f" or sign < " " for sign in found.path), found
    sent = found.raw.decode("ascii")
    for service in (nginx, starlette, decode_last):
        assert service(sent) == found.path, (service.__name__, found)
