"""The key ring: one folder, 0700, that holds every secret the gateway makes for itself.

    master-20261121T010300Z-1a2b3c4d.key     see crypto.masters
    signing-20261121T010300Z-1a2b3c4d.pem    see crypto.signing

Keys come and go while it runs: `refresh` reads the folder again. A file is read only when its name is new, and the
names carry the time from when on a key is in use, so that all who read the folder change over together.

Losing the folder loses what was sealed with it (enrolled factors) but no data of the services behind us.
"""

from __future__ import annotations

import fcntl
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from gateway.core.clock import Clock, SystemClock
from gateway.core.errors import ConfigError, Problem
from gateway.crypto import masters, signing
from gateway.crypto.mac import Mac
from gateway.crypto.masters import Master, MasterKeys
from gateway.crypto.sealing import Sealer
from gateway.crypto.signing import Signer, SigningKey

OVERLAP = 300.0
"""Seconds a new signing key is published before it signs; longer than services keep a JWK set."""
MASTER_OVERLAP = 120.0
"""Seconds a new master key is published before it seals; longer than a shared folder takes to show a new file."""


class Changes(NamedTuple):
    """What is different in the folder, or is used now because its time has come."""

    master: bool
    signing: bool
    problem: str
    """Why something there cannot be used, in words; what was known before stays in use. Empty: nothing."""


class KeyRing:
    """Every key of one gateway. Made by `open`."""

    def __init__(
        self, folder: Path, masters: MasterKeys, signer: Signer, *, created: bool = False, clock: Clock
    ) -> None:
        self.folder = folder
        self.created = created
        """Whether the keys were made just now: the first start."""
        self.masters = masters
        self.sealer = Sealer(masters.secrets)
        self.mac = Mac(masters.secrets)
        self.signer = signer
        self._clock = clock

    @classmethod
    def open(
        cls, folder: Path, *, create: bool, clock: Clock | None = None, assertion_lifetime: float = 60.0
    ) -> KeyRing:
        """Read the folder; with `create`, make it and its keys where there are none yet.

        `assertion_lifetime`: seconds an assertion is good for at most; a replaced key stays published that long.
        Raises `ConfigError` for keys that others can read, that are damaged, or are missing.
        """
        clock = clock or SystemClock()
        created = False
        if create:
            _make_private_folder(folder)
        elif not folder.exists():
            raise ConfigError(f"key folder {folder} does not exist", "start the gateway once, it makes its keys")
        _must_be_readable(folder)
        if stat.S_IMODE(folder.stat().st_mode) & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            raise ConfigError(f"key folder {folder} can be changed by others", f"chmod 700 {folder}")
        if create:
            with _alone_in(folder):
                created = _make_missing(folder, clock)
        keys = MasterKeys(folder, clock)
        signer = Signer(folder, clock, assertion_lifetime)
        signer.standings()
        return cls(folder, keys, signer, created=created, clock=clock)

    def refresh(self) -> Changes:
        """Read the folder again, and use what it holds now. Raises nothing for keys that are not fit to be used."""
        problems: list[Problem] = []
        master = signs = False
        try:
            master = self.masters.refresh()
        except ConfigError as error:
            problems += error.problems
        if master:
            self.sealer.use(self.masters.secrets)
            self.mac.use(self.masters.secrets)
        try:
            signs = self.signer.refresh()
        except ConfigError as error:
            problems += error.problems
        return Changes(master, signs, "; ".join(map(str, problems)))

    def rotate_master(self, overlap: float = MASTER_OVERLAP) -> Master:
        """Publish a new master key now; it seals after `overlap` seconds. Where one is waiting already, it is that one.

        A running gateway notices through `refresh`. Raises `ConfigError` where the folder cannot be written.
        """
        with _alone_in(self.folder):
            self.refresh()
            standings = self.masters.standings()
            waiting = [standing.key for standing in standings if standing.status == "next"]
            if waiting:
                return waiting[-1]
            now = self._clock.now()
            start = math.ceil(now + overlap) if overlap > 0 else math.floor(now)
            start = max(start, math.floor(standings[-1].key.not_before) + 1)  # of two for one second, which is current?
            key = masters.make(self.folder, start)
        self.refresh()
        return key

    def retire_master(self, key: Master) -> None:
        """Remove the file of an old master key: what it has sealed opens never again.

        Raises `ConfigError` where the folder cannot be written, and for a key that is not old.
        """
        with _alone_in(self.folder):
            self.refresh()
            old = [standing.key.id for standing in self.masters.standings() if standing.status == "old"]
            if key.id not in old:
                raise ConfigError(f"master key {key.id.hex()} is not an old one", "see `sallyport key list`")
            try:
                key.path.unlink()
            except OSError as error:
                raise ConfigError(
                    f"{key.path} cannot be removed: {error.strerror}",
                    "nothing needs it any more: remove it where the folder comes from",
                ) from error
        self.refresh()

    def rotate_signing(self, overlap: float = OVERLAP) -> SigningKey:
        """Publish a new signing key now; it signs after `overlap` seconds. Removes the files of retired keys.

        A running gateway notices through `Signer.refresh`. With `overlap` 0.0 the new key signs at once, and services
        that keep a JWK set may refuse assertions until they fetch it again.
        """
        with _alone_in(self.folder):
            for standing in self.signer.standings():
                if standing.status == "retired":
                    standing.key.path.unlink(missing_ok=True)
            now = self._clock.now()
            start = math.ceil(now + overlap) if overlap > 0 else math.floor(now)
            taken = {standing.key.not_before for standing in self.signer.standings()}
            while start in taken:  # of two keys for one second, which signs would be left to chance
                start += 1
            key = signing.make(self.folder, start)
        self.signer.refresh()
        return key


def _make_missing(folder: Path, clock: Clock) -> bool:
    """Make what a first start needs. A lost master key is never replaced in silence: what it sealed would be lost."""
    has_master, has_signing = any(folder.glob("master-*.key")), any(folder.glob("signing-*.pem"))
    if has_signing and not has_master:
        raise ConfigError(
            f"key folder {folder} holds signing keys but no master key",
            "restore it from a backup, or move the folder away to begin anew: enrolled factors are then lost",
        )
    if not has_master:
        masters.make(folder, math.floor(clock.now()))
    if not has_signing:
        signing.make(folder, math.floor(clock.now()))
    return not has_master


def _make_private_folder(folder: Path) -> None:
    """And the folders it is to be in, as private: `mkdir` would make those for everybody to look into."""
    try:
        for missing in (*reversed(folder.parents), folder):
            if not missing.exists():
                missing.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"key folder {folder} cannot be made: {error.strerror}",
            "check `keys` in the configuration, and that its folder can be written by this user",
        ) from error


def _must_be_readable(folder: Path) -> None:
    """Else keys that are there would look as if they were not."""
    try:
        with os.scandir(folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"key folder {folder} cannot be read: {error.strerror}",
            "check `keys` in the configuration, and that the folder belongs to this user",
        ) from error


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep two processes from making keys at the same time."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
