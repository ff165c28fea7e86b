from __future__ import annotations

import pytest

from gateway.store.redis_where import Address, Where


@pytest.mark.parametrize(
    ("url", "kind", "tls", "addresses"),
    [
        ("redis://cache", "standalone", False, (Address("cache", 6379),)),
        ("rediss://cache:6380/", "standalone", True, (Address("cache", 6380),)),
        ("redis://[2001:db8::1]:7/2", "standalone", False, (Address("2001:db8::1", 7),)),
        ("unix:///run/redis.sock", "standalone", False, (Address(path="/run/redis.sock"),)),
        ("redis+sentinel://a,b:7/main", "sentinel", False, (Address("a", 26379), Address("b", 7))),
        ("rediss+cluster://a,[::1]:7", "cluster", True, (Address("a", 6379), Address("::1", 7))),
    ],
)
def test_what_a_url_says(url: str, kind: str, tls: bool, addresses: tuple[Address, ...]) -> None:
    where = Where.parse(url)
    assert (where.kind, where.tls, where.addresses) == (kind, tls, addresses)
    assert Where.parse(str(where)) == where


def test_databases_and_names() -> None:
    assert Where.parse("redis://cache/15").database == 15
    assert Where.parse("unix:///run/redis.sock?db=3").database == 3
    where = Where.parse("redis+sentinel://a/my%20master/2")
    assert (where.master, where.database) == ("my master", 2)


def test_passwords_are_read_and_never_shown() -> None:
    where = Where.parse("rediss://ann:p%40ss%3Aword@cache/1")
    assert (where.username, where.password) == ("ann", "p@ss:word")
    assert "ss:word" not in f"{where} {where!r}"
    assert Where.parse("redis://:only@cache").password == "only"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("cache:6379", "not the URL of a Redis"),
        ("http://cache", "not the URL of a Redis"),
        ("redis://", "the hosts are not host:port"),
        ("redis://cache:0", "the hosts are not host:port"),
        ("redis://cache:65536", "the hosts are not host:port"),
        ("redis://u:hunter2@ca che", "the hosts are not host:port"),
        ("redis://a,b", "several hosts are redis+sentinel"),
        ("redis://cache/x", "the database of a Redis is a number"),
        ("redis://cache/1/2", "too many `/`"),
        ("redis://:hunter2?x@cache", "has no `?`"),
        ("redis://cache?db=1", "has no `?`"),
        ("redis://:hunter2#x@cache", "written %23"),
        ("redis+sentinel://a:1", "the name of the master is missing"),
        ("redis+cluster://a/1", "no databases but 0"),
        ("unix://run/redis.sock", "a Unix socket is written unix:///"),
        ("unix:///run/redis.sock?password=hunter2", "a Unix socket is written unix:///"),
        ("redis://[::1", "not a URL"),
    ],
)
def test_what_no_url_is(url: str, said: str) -> None:
    with pytest.raises(ValueError) as refused:
        Where.parse(url)
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)
