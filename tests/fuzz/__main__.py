"""Fuzz every target, or those that are named: `python -m tests.fuzz [--seconds 60] [name …]`.

Coverage-guided by atheris where it is installed, else by the mutator of `mutate.py`. What breaks a property, and the
inputs that reached something new, are kept under `build/fuzz/<name>/`. Exit 1 when anything broke. Each target has a
process of its own, for one that crashes takes it along.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import time
import traceback
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.mutate import NASTY, mutations

HERE = Path(__file__).parent
KEPT = HERE.parents[1] / "build" / "fuzz"
NAMES = sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))
SLOWEST = 20
"""Seconds that one input may take."""


def corpus(name: str) -> list[bytes]:
    """The beginnings of a target."""
    return [path.read_bytes() for path in sorted((HERE / "corpus" / name).iterdir())]


def guided(name: str, seconds: int) -> None:
    """Fuzz one target with atheris, in this process. Does not return."""
    import atheris

    with atheris.instrument_imports(include=["gateway"]):
        target = import_module(f"tests.fuzz.fuzz_{name}")
    folder = KEPT / name
    words = KEPT / "words"
    quoted = ("".join(f"\\x{octet:02x}" for octet in word) for word in NASTY)
    words.write_text("".join(f'"{word}"\n' for word in quoted))
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", f"-timeout={SLOWEST}", "-max_len=4096"]
    options += [f"-dict={words}", "-reduce_inputs=0", "-print_final_stats=1"]
    atheris.Setup([name, *options, str(folder / "corpus"), str(HERE / "corpus" / name)], target.one)
    atheris.Fuzz()


def blind(name: str, seconds: int) -> bool:
    """Fuzz one target with our own mutator, in this process; whether it held. The input it is at is kept in `last`."""
    last = os.open(KEPT / name / "last", os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o644)
    target = import_module(f"tests.fuzz.fuzz_{name}")
    seed = random.randrange(1 << 32)
    print(f"  seed {seed}")
    until = time.monotonic() + seconds
    for tried, data in enumerate(mutations(random.Random(seed), corpus(name)), 1):
        os.ftruncate(last, len(data))
        os.pwrite(last, data, 0)
        try:
            target.one(data)
        except Exception:
            traceback.print_exc()
            keep(name, data)
            return False
        if time.monotonic() > until:
            print(f"  {tried} inputs")
            break
    return True


def keep(name: str, data: bytes) -> None:
    """What broke a target."""
    kept = KEPT / name / f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
    kept.write_bytes(data)
    print(f"  kept in {kept}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--how", choices=("guided", "blind"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in NAMES]:
        parser.error(f"no target called {', '.join(unknown)}")
    if args.how == "guided":
        guided(args.names[0], args.seconds)
    if args.how == "blind":
        return 0 if blind(args.names[0], args.seconds) else 1
    with_atheris = find_spec("atheris") is not None
    if not with_atheris:
        print("atheris is not installed (pip install --editable '.[fuzz]'): the inputs are mutated blindly")
    broken = []
    for name in args.names or NAMES:
        print(f"{name}: {args.seconds} s", flush=True)
        (KEPT / name / "corpus").mkdir(parents=True, exist_ok=True)
        how = "guided" if with_atheris else "blind"
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz", "--how", how]
        code = subprocess.run([*command, "--seconds", str(args.seconds), name], check=False).returncode
        if code < 0 and not with_atheris:
            print(f"  died of signal {-code}")
            keep(name, (KEPT / name / "last").read_bytes())
        if code:
            broken.append(name)
    print(f"BROKEN: {', '.join(broken)}; see {KEPT}" if broken else "Every property held.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
