from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from gateway.crypto.masters import derive, framed, key_id
from gateway.crypto.sealing import Sealer, Unsealable

MASTER, OTHER = bytes(range(32)), bytes(range(1, 33))
SEALER = Sealer([MASTER])


@given(st.binary(max_size=200), st.text(), st.text(), st.text())
def test_what_was_sealed_opens_in_its_place(plain: bytes, table: str, column: str, row: str) -> None:
    sealed = SEALER.seal(plain, table=table, column=column, row=row)
    assert len(sealed) == len(plain) + 37
    assert SEALER.unseal(sealed, table=table, column=column, row=row) == plain


def test_the_layout_is_what_it_says() -> None:
    sealed = SEALER.seal(b"secret", table="factors", column="secret", row="7")
    head, nonce, rest = sealed[:9], sealed[9:21], sealed[21:]
    assert head == b"\x01" + key_id(MASTER)
    opened = AESGCM(derive(MASTER, "seal")).decrypt(nonce, rest, head + framed("factors", "secret", "7"))
    assert opened == b"secret"


def test_it_opens_nowhere_else() -> None:
    sealed = SEALER.seal(b"secret", table="factors", column="secret", row="ann")
    for table, column, row in [("other", "secret", "ann"), ("factors", "other", "ann"), ("factors", "secret", "bob")]:
        with pytest.raises(Unsealable):
            SEALER.unseal(sealed, table=table, column=column, row=row)
    with pytest.raises(Unsealable):
        SEALER.unseal(sealed, table="factor", column="ssecret", row="ann")


def test_every_changed_or_missing_byte_is_noticed() -> None:
    sealed = SEALER.seal(b"secret", table="t", column="c", row="r")
    for at in range(len(sealed)):
        for damaged in (sealed[:at], sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]):
            with pytest.raises(Unsealable):
                SEALER.unseal(damaged, table="t", column="c", row="r")


def test_the_same_secret_never_looks_the_same() -> None:
    assert len({SEALER.seal(b"secret", table="t", column="c", row="r") for _ in range(100)}) == 100


def test_an_older_master_key_still_opens_and_the_newest_seals() -> None:
    old = Sealer([OTHER]).seal(b"secret", table="t", column="c", row="r")
    both = Sealer([MASTER, OTHER])
    assert both.unseal(old, table="t", column="c", row="r") == b"secret"
    new = both.seal(b"secret", table="t", column="c", row="r")
    assert SEALER.unseal(new, table="t", column="c", row="r") == b"secret"
    with pytest.raises(Unsealable):
        SEALER.unseal(old, table="t", column="c", row="r")


def test_keys_change_in_one_step() -> None:
    sealer = Sealer([OTHER])
    old, number = sealer.seal(b"secret", table="t", column="c", row="r"), sealer.current
    sealer.use([MASTER, OTHER])
    assert sealer.head == b"\x01" + key_id(MASTER)
    assert sealer.current != number
    assert sealer.ids == {number, sealer.current}
    assert sealer.unseal(old, table="t", column="c", row="r") == b"secret"
    assert sealer.seal(b"secret", table="t", column="c", row="r").startswith(sealer.head)
    sealer.use([MASTER])
    with pytest.raises(Unsealable):
        sealer.unseal(old, table="t", column="c", row="r")
