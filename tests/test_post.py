"""Who carries messages: what `notify` may say, and what comes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import settings
from gateway.core.errors import ConfigError
from tests.rig.gateway import running

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FROM = "Gate <gate@good.test>"


def read(folder: Path, **notify: Any) -> settings.Settings:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"upstreams": {"app": {"url": "http://127.0.0.1:1"}}, "notify": notify}))
    return settings.load(file, {})


@pytest.mark.parametrize(
    ("notify", "said"),
    [
        ({"email": [{"smtp": {"host": "h"}}]}, "need `from`"),
        ({"from": FROM, "email": [{}]}, "exactly one"),
        ({"from": FROM, "email": [{"smtp": {"host": "h"}, "console": {}}]}, "exactly one"),
        ({"from": FROM, "email": [{"smtp": {"host": "h", "username": "u"}}]}, "go together"),
        (
            {"from": FROM, "email": [{"smtp": {"host": "h", "tls": "none", "username": "u", "password": "p"}}]},
            "reads the password",
        ),
        ({"from": FROM, "email": [{"smtp": {"host": "h\r\nx"}}]}, "host"),
        ({"from": "a@b.c, d@e.f"}, "one e-mail address"),
        ({"from": "x\r\nBcc: <a@b.c>"}, "one e-mail address"),
        ({"email": [{"webhook": {"url": "http://mail.example/", "secret": SECRET}}]}, "in clear"),
        ({"email": [{"webhook": {"url": "https://u:p@mail.example/", "secret": SECRET}}]}, "URL of a webhook"),
        ({"email": [{"webhook": {"url": "https://mail.example/", "secret": "c2hvcnQ="}}]}, "not a secret"),
    ],
)
def test_what_cannot_be(notify: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read(tmp_path, **notify)
    assert "c2hvcnQ" not in str(caught.value)
    assert "u:p@" not in str(caught.value)


@pytest.mark.parametrize(
    ("recovery", "said"),
    [
        ({}, "notify.email"),
        ({"delay": "30m"}, "delay"),
        ({"delay": "31d"}, "delay"),
        ({"expires": "1m"}, "expires"),
        ({"channel": "sms"}, "channel"),
        ({"administrators": True}, "administrators"),
    ],
)
def test_what_recovery_cannot_be(recovery: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    notify = {"email": [{"console": {}}]} if recovery else {}
    document = {"upstreams": {"app": {"url": "http://127.0.0.1:1"}}, "mfa": {"recovery": recovery}, "notify": notify}
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=said):
        settings.load(file, {})


def test_secrets_show_themselves_to_nobody(tmp_path: Path) -> None:
    smtp = {"host": "h", "username": "u", "password": "very-secret"}
    known = read(
        tmp_path, **{"from": FROM, "email": [{"smtp": smtp}, {"webhook": {"url": "https://h/token", "secret": SECRET}}]}
    )
    assert not {"very-secret", SECRET, "token"} & set(repr(known.notify).replace("'", " ").split())
    assert "very-secret" not in repr(known)
    assert known.warnings == ()


def test_what_is_allowed_and_worth_a_thought(tmp_path: Path) -> None:
    known = read(
        tmp_path, **{"from": FROM, "email": [{"console": {}}, {"smtp": {"host": "far.example", "tls": "none"}}]}
    )
    assert [str(one).partition(": ")[2].partition(":")[0] for one in known.warnings] == [
        "messages go to standard output",
        "messages travel in clear",
    ]


async def test_without_it_there_is_no_post(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        assert gateway.app._outbox is None
        assert b"sallyport_notifications_waiting " not in gateway.app.metrics.render()[0]
    script = (
        "import sys, gateway.people, gateway.app; print('aiosmtplib' in sys.modules, 'gateway.post' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == ["False", "False"]
