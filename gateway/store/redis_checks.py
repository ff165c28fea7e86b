"""Whether a Redis is fit to keep what replicas share, asked when it is opened.

It has to be 6.2 or newer: `GETDEL`, which hands a value to exactly one caller, came with it. It has to let scripts
run, which call `TIME` and then write; and let us use the commands that our scripts are made of, on our keys. All of
that is tried on a key of our own, so an ACL that is too tight is found before the first request.

What it should not do, and may, is warned of: forget keys to make room (a forgotten counter lets more through, a
forgotten session signs somebody out), and forget everything when it is restarted.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING

from redis.exceptions import AuthenticationError, RedisError

from gateway.core.errors import ConfigError
from gateway.store.redis_link import Lost, Node, connect, let_go, why
from gateway.store.redis_nodes import NoSuchMaster

if TYPE_CHECKING:
    from gateway.store.redis_where import Where

_log = logging.getLogger("sallyport")

OLDEST = (6, 2)
ACL = "docs/state.md has the line for the ACL"
PATIENCE = 2.0
"""Seconds an answer may take while it is opened."""

USED = """
local key, failed = KEYS[1], {}
for _, command in ipairs({
    {'TIME'}, {'SET', key, '1', 'PX', '1000'}, {'GET', key}, {'INCRBY', key, '1'}, {'PTTL', key}, {'EXISTS', key},
    {'PEXPIRE', key, '1000'}, {'DEL', key},
    {'SETRANGE', key, '0', '1'}, {'GETRANGE', key, '0', '1'}, {'DEL', key},
    {'HSET', key, 'a', '1'}, {'HGET', key, 'a'}, {'HMGET', key, 'a'}, {'HGETALL', key},
    {'HINCRBY', key, 'a', '1'}, {'HDEL', key, 'a'},
    {'ZADD', key, '1', 'a'}, {'ZCARD', key}, {'ZCOUNT', key, '0', '1'}, {'ZSCORE', key, 'a'},
    {'ZRANGE', key, '0', '-1'}, {'ZREMRANGEBYSCORE', key, '0', '0'}, {'ZREM', key, 'a'},
    {'PUBLISH', ARGV[1], ''}, {'DEL', key},
}) do
    local answer = redis.pcall(unpack(command))
    if type(answer) == 'table' and answer.err then failed[#failed + 1] = command[1] .. ': ' .. answer.err end
end
return failed
"""
"""What our scripts are made of, each tried. Answers those that failed, with why."""


def not_fit(where: Where, error: BaseException) -> ConfigError:
    """What to tell the operator where connecting or asking has failed with `error`."""
    said = why(error)
    tls = "rediss" if where.tls else "redis"
    if isinstance(error, NoSuchMaster):
        return _wrong(where, said, "write the name after `sentinel monitor` in their configuration")
    if isinstance(error, AuthenticationError) or said.startswith(("NOAUTH", "WRONGPASS", "invalid username")):
        return _wrong(
            where, "does not accept our user name and password", "`username` and `password` of `store.shared`"
        )
    if "NOPERM" in said or "has no permissions" in said:
        return _wrong(where, f"does not let us do what we need: {said}", ACL)
    if where.kind == "cluster" and ("cluster support disabled" in said or "unknown command" in said):
        return _wrong(where, "is no cluster", f"write {tls}:// or {tls}+sentinel://")
    if where.kind == "sentinel" and "unknown command" in said:
        return _wrong(where, "is no Sentinel", f"write {tls}:// or {tls}+cluster://")
    if said.startswith(("TLS failed: wrong version", "no TLS handshake")):
        return _wrong(where, f"does not speak TLS: {said}", f"write {where.scheme.replace('rediss', 'redis')}://")
    ended = "closed" in said.lower() or "reset" in said.lower()
    if where.tls and (ended or "certificate required" in said or "handshake failure" in said):
        return _wrong(
            where, f"cannot be used: {said}", "if it asks for a certificate, `certificate` and `key` are ours"
        )
    if said.startswith("its certificate"):
        return _wrong(where, said, "`ca` of `store.shared` names who signed it")
    if not where.tls and ended:
        return _wrong(
            where, f"cannot be used: {said}", f"if it speaks TLS, write {where.scheme.replace('redis', 'rediss')}://"
        )
    return _wrong(where, f"cannot be reached: {said}")


async def examine(where: Where, node: Node, key: str) -> None:
    """Look at one server that is written to, and has `key`.

    Raises `ConfigError`; what `Node.ask` raises where it does not answer.
    """
    said: dict[str, str] = {}
    for section in ("server", "replication", "memory", "persistence"):
        text = (await node.ask("INFO", section, seconds=PATIENCE)).decode(errors="replace")
        said.update(line.split(":", 1) for line in text.splitlines() if ":" in line)
    _right_kind(where, said)
    version = said.get("redis_version", "")
    numbers = tuple(map(int, re.findall("[0-9]+", version)[:2]))
    if numbers < OLDEST:
        raise _wrong(where, f"is version {version or 'unknown'}", "6.2 or newer is needed")
    if where.kind == "standalone" and said.get("role") == "slave":
        raise _wrong(
            where, "is a replica, which nothing can be written to", "name its master, or use redis+sentinel://"
        )
    channel = f"{where.prefix}check"
    if failed := await node.ask("EVAL", USED, 1, key, channel, seconds=PATIENCE):
        first = failed[0].decode(errors="replace").split("\n")[0]
        raise _wrong(where, f"refuses what our scripts need: {first}", ACL)
    await node.ask("GETDEL", key, seconds=PATIENCE)
    listening = await connect(where, node.address)
    try:
        await listening.send_command("SUBSCRIBE", channel)
        async with asyncio.timeout(PATIENCE):
            await listening.read_response()
    finally:
        let_go(listening)
    await _warn(node, said)


def _right_kind(where: Where, said: dict[str, str]) -> None:
    mode = said.get("redis_mode", "standalone")
    tls = "rediss" if where.tls else "redis"
    if mode == "sentinel":
        raise _wrong(where, "is a Sentinel", f"write {tls}+sentinel://host:26379/name")
    if mode == "cluster" and where.kind != "cluster":
        raise _wrong(where, "is a node of a cluster", f"write {tls}+cluster://host:6379")
    if mode != "cluster" and where.kind == "cluster":
        raise _wrong(where, "is no cluster", f"write {tls}://host:6379")


async def _warn(node: Node, said: dict[str, str]) -> None:
    policy = said.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        _log.warning(
            "the shared store at %s forgets keys when it is full (maxmemory-policy %s), and limits would let too much "
            "through; set noeviction",
            node.address, policy,
        )  # fmt: skip
    if said.get("aof_enabled") == "0":
        try:
            answer = await node.ask("CONFIG", "GET", "save", seconds=PATIENCE)
        except (RedisError, Lost):  # not ours to ask, where somebody else runs it
            return
        if answer[1:] == [b""]:
            _log.warning(
                "the shared store at %s keeps nothing on disk: when it restarts, everybody has to sign in again",
                node.address,
            )


def _wrong(where: Where, what: str, suggestion: str = "") -> ConfigError:
    return ConfigError(f"store.shared: {where} {what}", suggestion)
