"""Redis as it may be laid out, each started once for all tests that want it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from gateway.store.redis_where import Where
from tests.rig import redis as rig
from tests.rig.once import PATIENT

KINDS = ["redis", "redis-tls", "redis-sentinel", "redis-cluster"]
"""Layouts, as `where_of` knows them."""


@pytest.fixture(scope="session")
def one_redis() -> Iterator[rig.Server]:
    """One server; tests share it, each with keys of its own."""
    with rig.a_server() as server:
        yield server


@pytest.fixture(scope="session")
def secure_redis() -> Iterator[rig.Secure]:
    """TLS, a client certificate, an ACL."""
    with rig.secure() as server:
        yield server


@pytest.fixture(scope="session")
def watched_redis() -> Iterator[rig.Watched]:
    """A master, a replica, three Sentinels."""
    with rig.watched() as group:
        yield group


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[rig.Masters]:
    """Three masters."""
    with rig.a_cluster() as cluster:
        yield cluster


def where_of(kind: str, request: pytest.FixtureRequest) -> Where:
    """Where the Redis of this kind is, with a prefix of the test's own, and time to answer: the machine may be busy."""
    if kind == "redis":
        where = Where.parse(request.getfixturevalue("one_redis").url)
    elif kind == "redis-tls":
        where = request.getfixturevalue("secure_redis").where
    elif kind == "redis-sentinel":
        where = request.getfixturevalue("watched_redis").where
    else:
        where = request.getfixturevalue("redis_cluster").where
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return replace(where, prefix=f"sallyport:{name}:", deadline=PATIENT)
