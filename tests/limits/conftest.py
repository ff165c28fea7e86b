from __future__ import annotations

from gateway.catalog import ALGORITHMS as STEPS
from gateway.core.facts import Facts
from gateway.core.identity import Identity, Session
from gateway.core.rule import LimitSpec


def facts(network: str = "192.0.2.1", headers: list[tuple[bytes, bytes]] | None = None, path: str = "/") -> Facts:
    return Facts(method="GET", host="app.example", path=path, network=network, headers=headers or [])


def somebody(subject: str = "s-ann", session: str = "", tenant: str = "default", **claims: object) -> Identity:
    kept = Session(session, 1, 0.0, 0.0, 0.0, (), "", "") if session else None
    return Identity(tenant, subject, "ann", claims=claims, session=kept)


def limit(
    name: str = "per-address",
    key: tuple[str, ...] = ("address",),
    rate: int = 3,
    window: float = 60.0,
    burst: int = 0,
    algorithm: str = "token_bucket",
) -> LimitSpec:
    return LimitSpec(name, key, algorithm, rate, window, burst or rate)


__all__ = ["STEPS", "facts", "limit", "somebody"]
