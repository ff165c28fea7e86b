"""Every target holds for its corpus and a few thousand seeded mutations of it."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import islice

import pytest

from tests.fuzz import memory
from tests.fuzz.__main__ import HERE, NAMES, corpus
from tests.fuzz.mutate import mutations
from tests.house.process import ROOT

TRIED = 5_000
TRIED_IN_CONVERSATION = 1_000
"""Inputs for targets that hold a conversation."""
CAN_CRASH = ("postgresql", "redis")
"""Targets behind which is a parser of C: in a process of their own, for it would take everybody along."""
CONVERSATIONS = ("chunked", "familiar", "forward_auth", "postgresql", "redis", "request", "response")


@pytest.fixture(scope="module", autouse=True)
def gateway_ends() -> Iterator[None]:
    """The gateway that the conversations are with stops after the last one."""
    yield
    memory.house().stop()
    memory.house.cache_clear()


def test_every_target_has_a_corpus() -> None:
    assert len(NAMES) >= 8
    assert sorted(path.name for path in (HERE / "corpus").iterdir()) == NAMES
    assert all(len(corpus(name)) >= 3 for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_properties_hold(name: str) -> None:
    if name not in CAN_CRASH:
        hold(name)
        return
    command = [sys.executable, "-X", "faulthandler", "-c", f"from tests.fuzz.test_fuzz import hold; hold({name!r})"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()


def hold(name: str) -> None:
    """Raises what the target does, and says of which input."""
    one = import_module(f"tests.fuzz.fuzz_{name}").one
    for data in corpus(name):
        one(data)
    count = TRIED_IN_CONVERSATION if name in CONVERSATIONS else TRIED
    for data in islice(mutations(random.Random(name), corpus(name)), count):
        try:
            one(data)
        except Exception as error:
            error.add_note(f"the input: {data!r}")
            raise
