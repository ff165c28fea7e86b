from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.core.clock import ManualClock
from gateway.core.errors import ConfigError
from gateway.crypto.keys import KeyRing
from gateway.crypto.sealing import Unsealable


def problem(folder: Path, *, create: bool = True) -> str:
    with pytest.raises(ConfigError) as caught:
        KeyRing.open(folder, create=create)
    return str(caught.value)


def master_of(folder: Path) -> Path:
    (path,) = folder.glob("master-*.key")
    return path


def test_a_first_start_makes_private_keys_and_says_so(ring: KeyRing, folder: Path) -> None:
    assert ring.created
    assert folder.stat().st_mode & 0o777 == 0o700
    files = sorted(path.name for path in folder.iterdir())
    assert [name.partition("-")[0] for name in files] == ["master", "signing"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_whatever_the_umask_is(folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        folder.parent.mkdir(mode=0o700)
        folder.parent.chmod(0o700)
        folder.mkdir()
        folder.chmod(0o700)
        KeyRing.open(folder, create=True)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_second_start_reads_the_same_keys(ring: KeyRing, folder: Path) -> None:
    again = KeyRing.open(folder, create=True)
    assert not again.created
    assert again.mac.token("x", "a") == ring.mac.token("x", "a")
    assert again.signer.jwks() == ring.signer.jwks()
    assert again.sealer.unseal(ring.sealer.seal(b"s", table="t", column="c", row="r"), table="t", column="c", row="r")


def add_master(folder: Path, stamp: str, secret: bytes = bytes(32)) -> Path:
    path = folder / f"master-{stamp}-00000000.key"
    path.write_bytes(base64.urlsafe_b64encode(secret))
    path.chmod(0o600)
    return path


def test_the_newest_master_key_whose_time_has_come_is_current_and_the_older_one_still_opens(
    ring: KeyRing, folder: Path, clock: ManualClock
) -> None:
    sealed = ring.sealer.seal(b"s", table="t", column="c", row="r")
    clock.advance(10)
    add_master(folder, "20231114T221325Z")  # five seconds after the first one
    again = KeyRing.open(folder, create=False, clock=clock)
    assert again.sealer.unseal(sealed, table="t", column="c", row="r") == b"s"
    assert again.mac.token("x", "a") != ring.mac.token("x", "a")
    assert again.mac.verify(ring.mac.token("x", "a"), "x", "a")


def test_a_master_key_opens_before_it_seals(ring: KeyRing, folder: Path, clock: ManualClock) -> None:
    """The order of a rotation over replicas: who seals first is met by nobody who cannot open it."""
    ahead, behind = (KeyRing.open(folder, create=False, clock=clock) for _ in range(2))
    old = ring.sealer.current
    key = ring.rotate_master(60)
    assert [standing.status for standing in ring.masters.standings()] == ["current", "next"]
    assert ahead.refresh() == behind.refresh() == (True, False, "")
    assert ahead.sealer.current == old
    clock.advance(61)
    assert ahead.refresh().master  # and `behind` has not looked since
    assert ahead.sealer.current != old
    sealed = ahead.sealer.seal(b"s", table="t", column="c", row="r")
    assert behind.sealer.current == old
    assert behind.sealer.unseal(sealed, table="t", column="c", row="r") == b"s"
    assert behind.mac.verify(ahead.mac.token("x", "a"), "x", "a")
    assert (
        ahead.sealer.unseal(behind.sealer.seal(b"t", table="t", column="c", row="r"), table="t", column="c", row="r")
        == b"t"
    )
    assert ahead.mac.verify(behind.mac.token("x", "a"), "x", "a")
    assert ahead.masters.current.id == key.id
    assert ahead.refresh() == (False, False, "")


def test_of_two_rotations_at_once_one_key_comes(ring: KeyRing, folder: Path, clock: ManualClock) -> None:
    other = KeyRing.open(folder, create=False, clock=clock)
    assert ring.rotate_master(60).id == other.rotate_master(5).id
    assert len(list(folder.glob("master-*"))) == 2
    clock.advance(60)
    assert ring.rotate_master(60).id != other.masters.current.id
    assert len(list(folder.glob("master-*"))) == 3


def test_two_keys_of_one_second_do_not_come(ring: KeyRing, clock: ManualClock) -> None:
    first = ring.masters.current
    second = ring.rotate_master(0)
    assert second.not_before == first.not_before + 1
    clock.advance(1)
    ring.refresh()
    assert ring.masters.current.id == second.id


def test_a_clock_set_back_leaves_the_oldest_key(ring: KeyRing, clock: ManualClock) -> None:
    first = ring.masters.current
    clock.advance(10)
    ring.rotate_master(0)
    clock.jump(-100)
    ring.refresh()
    assert ring.masters.current.id == first.id
    ring.sealer.seal(b"s", table="t", column="c", row="r")


def test_only_an_old_key_can_be_retired(ring: KeyRing, folder: Path, clock: ManualClock) -> None:
    first = ring.masters.current
    sealed = ring.sealer.seal(b"s", table="t", column="c", row="r")
    with pytest.raises(ConfigError, match="not an old one"):
        ring.retire_master(first)
    second = ring.rotate_master(60)
    with pytest.raises(ConfigError, match="not an old one"):
        ring.retire_master(second)
    clock.advance(60)
    other = KeyRing.open(folder, create=False, clock=clock)
    ring.retire_master(first)
    assert [path.name for path in folder.glob("master-*")] == [second.path.name]
    assert other.refresh().master
    for each in (ring, other):
        with pytest.raises(Unsealable):
            each.sealer.unseal(sealed, table="t", column="c", row="r")


@pytest.mark.parametrize("what", ["others can read it", "damaged", "all gone"])
def test_a_master_key_that_cannot_be_used_changes_nothing_while_it_runs(ring: KeyRing, folder: Path, what: str) -> None:
    sealed = ring.sealer.seal(b"s", table="t", column="c", row="r")
    path = master_of(folder)
    if what == "all gone":
        path.unlink()
    else:
        another = add_master(folder, "20231114T221325Z", b"short" if what == "damaged" else bytes(32))
        another.chmod(0o644 if what != "damaged" else 0o600)
    changes = ring.refresh()
    assert not changes.master
    assert any(words in changes.problem for words in ("can be read by others", "is damaged", "holds no master key"))
    assert ring.sealer.unseal(sealed, table="t", column="c", row="r") == b"s"
    ring.rotate_signing(0)
    assert len(ring.signer.jwks()["keys"]) == 2, "a bad master key does not hold up the signing keys"


def test_a_master_key_with_a_strange_name_is_told(ring: KeyRing, folder: Path) -> None:
    master_of(folder).rename(folder / "master-key.key")
    assert "is not named as a master key" in problem(folder)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602, 0o620])
@pytest.mark.parametrize("kind", ["master", "signing"])
def test_a_key_file_others_can_read_is_refused(ring: KeyRing, folder: Path, kind: str, mode: int) -> None:
    (path,) = folder.glob(f"{kind}-*")
    path.chmod(mode)
    assert problem(folder) == f"key file {path} can be read by others (chmod 600 {path})"


def test_a_mounted_secret_of_root_may_be_read_by_its_group(
    ring: KeyRing, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make files of root")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for path in folder.iterdir():
        path.chmod(0o440)
    assert not KeyRing.open(folder, create=False).created
    master_of(folder).chmod(0o444)
    assert "can be read by others" in problem(folder)


def test_a_folder_others_can_change_is_refused(ring: KeyRing, folder: Path) -> None:
    folder.chmod(0o777)
    assert problem(folder) == f"key folder {folder} can be changed by others (chmod 700 {folder})"


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    assert "does not exist" in problem(tmp_path / "keys", create=False)


def test_a_lost_master_key_is_not_replaced_in_silence(ring: KeyRing, folder: Path) -> None:
    master_of(folder).unlink()
    assert "no master key" in problem(folder)
    assert "no master key" in problem(folder, create=False)
    assert list(folder.glob("master-*")) == []


def test_a_lost_signing_key_is_told_or_made_anew(ring: KeyRing, folder: Path) -> None:
    for path in folder.glob("signing-*"):
        path.unlink()
    assert "holds no signing key" in problem(folder, create=False)
    assert not KeyRing.open(folder, create=True).created
    assert len(list(folder.glob("signing-*"))) == 1


@pytest.mark.parametrize("damage", [b"", b"short", b"\xff" * 40, base64.urlsafe_b64encode(bytes(31)), b"!" * 44])
def test_a_damaged_master_key_is_told(ring: KeyRing, folder: Path, damage: bytes) -> None:
    master_of(folder).write_bytes(damage)
    assert str(master_of(folder)) in problem(folder)
    assert "is damaged" in problem(folder)


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"\0"])
def test_a_damaged_signing_key_is_told(ring: KeyRing, folder: Path, damage: bytes) -> None:
    (path,) = folder.glob("signing-*")
    path.write_bytes(damage)
    assert f"{path}: is damaged" in problem(folder)


def test_a_signing_key_of_another_kind_is_told(ring: KeyRing, folder: Path) -> None:
    (path,) = folder.glob("signing-*")
    other = generate_private_key(SECP384R1())
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert "is not a P-256 key" in problem(folder)


def test_an_encrypted_signing_key_is_told(ring: KeyRing, folder: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

    (path,) = folder.glob("signing-*")
    key = generate_private_key(SECP256R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    assert "is damaged or not a PEM private key" in problem(folder)


def test_a_signing_key_with_a_strange_name_is_told(ring: KeyRing, folder: Path) -> None:
    (path,) = folder.glob("signing-*")
    path.rename(folder / "signing-key.pem")
    assert "is not named as a signing key" in problem(folder)


def test_what_was_half_written_is_never_read(ring: KeyRing, folder: Path) -> None:
    (folder / ".signing-20261121T010300Z-1a2b3c4d.pem.00000000").write_bytes(b"half")
    assert len(KeyRing.open(folder, create=True).signer.jwks()["keys"]) == 1


def test_nothing_secret_is_shown(ring: KeyRing, folder: Path) -> None:
    secret = master_of(folder).read_text().strip()
    (standing,) = ring.signer.standings()
    shown = repr([ring, ring.signer, ring.sealer, ring.mac, standing, ring.signer.jwks()])
    private = standing.key.private.private_numbers().private_value
    assert secret not in shown
    assert str(private) not in shown
    assert base64.urlsafe_b64encode(private.to_bytes(32, "big")).decode().rstrip("=") not in shown


def test_two_processes_may_start_for_the_first_time_at_once(folder: Path) -> None:
    program = (
        "from pathlib import Path\nfrom gateway.crypto.keys import KeyRing\n"
        f"ring = KeyRing.open(Path({str(folder)!r}), create=True)\nprint(ring.created, ring.mac.token('x'))\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60)[0].split() for process in started]
    assert sorted(created for created, _ in said) == [b"False", b"False", b"True"]
    assert len({token for _, token in said}) == 1
    assert len(list(folder.iterdir())) == 2


def test_rotation_removes_retired_keys_only(ring: KeyRing, folder: Path, clock: ManualClock) -> None:
    for _ in range(3):
        ring.rotate_signing(300)
        clock.advance(400)
    assert len(list(folder.glob("signing-*.pem"))) == 3  # the first is retired since the third rotation
    clock.advance(10_000)
    ring.rotate_signing(300)
    assert [standing.status for standing in ring.signer.standings()] == ["signing", "next"]
    assert len(list(folder.glob("signing-*.pem"))) == 2
