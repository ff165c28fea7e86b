"""A measurement whose bytes do not arrive is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.bodies import MIB, carried
from bench.machine import Process, cores, find
from bench.subjects import Subject, built
from tests.rig.ports import free_port

pytestmark = pytest.mark.skipif(find("go") is None, reason="Go is not here")


class Bare(Subject):
    """The service itself, nothing in the middle."""

    name = "nothing"
    does = "nothing"

    def version(self) -> str:
        return ""

    def program(self, origin: str) -> Process:
        return Process("goservice", [built("goservice"), f"127.0.0.1:{self.port}"], cores=self.core)


@pytest.fixture
def bare() -> Iterator[Bare]:
    _, others = cores()
    subject = Bare(others)
    with subject.program("") as subject.process:
        subject.process.wait_for(subject.url)
        yield subject


@pytest.mark.parametrize("way", ["down", "up"])
def test_every_byte_is_looked_at(bare: Bare, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = carried(bare, way, 20 * MIB)
    assert body.seconds > 0
    monkeypatch.setattr("bench.bodies._PATTERN" if way == "down" else "bench.bodies.zlib.crc32", *_spoilt(way))
    with pytest.raises(RuntimeError, match="other bytes" if way == "down" else "the service received"):
        carried(bare, way, 20 * MIB)


def _spoilt(way: str) -> tuple[object]:
    return (bytes(reversed(range(256))) * (MIB // 256 + 1),) if way == "down" else (lambda data, before: 1,)


def test_a_port_nobody_listens_on_is_no_subject() -> None:
    subject = Bare({0})
    subject.port = free_port()
    with pytest.raises(OSError, match="refused"):
        carried(subject, "down", MIB)
