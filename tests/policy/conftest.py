"""Policies from text, and people to judge by them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.core.clock import ManualClock
from gateway.core.errors import ConfigError, Problem
from gateway.core.facts import Facts
from gateway.core.identity import DEFAULT_TENANT, Identity, Proof, Session, amr_of, level_of
from gateway.policy.book import Book
from gateway.policy.load import load

NOW = 1_800_000_000.0

INTERFACE = """\
rules:
  - name: assets
    match: {hosts: [app.example.com], paths: [/static/**, /healthz], methods: [GET, HEAD]}
    access: public
    upstream: app
  - name: admin
    match: {paths: [/admin/**]}
    access: {groups: [admins]}                # users, groups, claims, tenants, any/all/not
    step_up: {level: aal2, factors: [webauthn, totp], max_age: 10m}
    limits:
      - {name: per-address, key: address, algorithm: sliding_window, rate: 100/m}
      - {name: per-user, key: user, algorithm: token_bucket, rate: 30/m, burst: 10}
    risk: {step_up_at: 0.5, refuse_at: 0.8}
    upstream: app
    audience: app-admin
  - name: everything-else
    access: authenticated
    upstream: app
examples:                                     # judged at every load; one wrong answer refuses the edit
  - {request: "GET /static/x.css", expect: allow}
  - {request: "GET /admin/users", expect: sign_in}
  - {request: "GET /admin/users", as: {user: ann, groups: [admins]}, expect: step_up}
  - {request: "GET /admin/users", as: {user: bob}, expect: refuse}
"""

MakeBook = Callable[..., Book]


@pytest.fixture
def book(tmp_path: Path) -> MakeBook:
    """A book of a policy text."""

    def make(text: str, **around: Any) -> Book:
        file = tmp_path / "policy.yaml"
        file.write_text(text)
        return load(
            file,
            **{
                "upstreams": ["app", "other"],
                "factors": ["totp", "backup_code"],
                "admin_groups": ["admins"],
                "clock": ManualClock(NOW),
                "environ": {},
                **around,
            },
        )

    return make


@pytest.fixture
def problems(book: MakeBook) -> Callable[..., list[Problem]]:
    """What is wrong with a policy text."""

    def find(text: str, **around: Any) -> list[Problem]:
        with pytest.raises(ConfigError) as caught:
            book(text, **around)
        return list(caught.value.problems)

    return find


def facts(path: str = "/", method: str = "GET", host: str = "app.example.com", **more: Any) -> Facts:
    return Facts(method=method, host=host, path=path, **{"address": "192.0.2.1", "network": "192.0.2.1", **more})


def somebody(user: str = "bob", *factors: str, ago: float = 0.0, **more: Any) -> Identity:
    """Signed in with a password and `factors`, `ago` seconds before NOW."""
    proofs = tuple(Proof(factor, NOW - ago) for factor in ("password", *factors))
    said: dict[str, Any] = {
        "tenant": DEFAULT_TENANT,
        "subject": f"sub-{user}",
        "user": user,
        "session": Session("s1", 1, NOW - ago, NOW + 3600, NOW, proofs, "192.0.2.1", "test"),
        "level": level_of(proofs),
        "amr": amr_of(proofs),
        "auth_time": NOW - ago,
        **more,
    }
    said["groups"] = frozenset(said.get("groups", ()))
    return Identity(**said)
