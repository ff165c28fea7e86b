from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from gateway.core.message import Message
from tests.rig.certificates import Authority


def letter(to: str = "ann@example.com", subject: str = "Hello", token: str = "t1") -> Message:
    return Message(token, "password_changed", to, subject, "said in text\n", "<p>said in HTML</p>\n", 1_700_000_000.0)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def server_tls(authority: Authority) -> ssl.SSLContext:
    made = authority.make("mail", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    return context


@pytest.fixture(scope="session")
def ca(authority: Authority) -> Path:
    return authority.path
