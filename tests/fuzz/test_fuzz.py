"""Every target holds for its corpus and a few thousand seeded mutations of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from importlib import import_module
from itertools import islice

import pytest

from tests.fuzz import memory
from tests.fuzz.__main__ import HERE, NAMES, corpus
from tests.fuzz.mutate import mutations

TRIED = 5_000
TRIED_IN_CONVERSATION = 1_000
"""Inputs for targets that lead a whole gateway."""
CONVERSATIONS = ("chunked", "familiar", "forward_auth", "request", "response")


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
