"""Builds the wheel; with `SALLYPORT_COMPILE=1` in the environment, the modules of the data path as machine code.

They stay the plain, typed Python they are: mypyc compiles the same files, twice as fast to run and with the same
behaviour, which the tests of the wire and of the attacks are run against as well. It needs a C compiler and, beside
setuptools, mypy and what the gateway itself depends on (`pip wheel --no-build-isolation .`).
"""

from __future__ import annotations

import os
import sys

from setuptools import setup

COMPILED = """
    gateway/gate.py
    gateway/core/{decision,facts,identity,rule}.py
    gateway/policy/{book,decide}.py
    gateway/store/near.py
    gateway/identity/cookie.py
    gateway/limits/{backoff,counted_by,counting,fixed_window,gcra,headers,leased,limiter,places,shared,sliding_window,token_bucket}.py
    gateway/risk/score.py
    gateway/audit/{access_log,metrics}.py
    gateway/wire/{client,endpoint,exchange,familiar,forward_auth,identity_headers,request,tunnel,upgrade,upstream,upstream_connection,websocket,wire}.py
"""
"""What a warm request passes through, and little else."""


def _paths() -> list[str]:
    paths = []
    for line in COMPILED.split():
        folder, brace, names = line.partition("{")
        names = names.removesuffix("}.py")
        paths += [f"{folder}{name}.py" for name in names.split(",")] if brace else [line]
    return paths


def _extensions() -> list[object]:
    if os.environ.get("SALLYPORT_COMPILE") != "1" or "bdist_wheel" not in sys.argv:
        return []
    from mypyc.build import mypycify

    extensions = list(mypycify(_paths(), opt_level="3"))
    for extension in extensions:
        # Python's own -Wall looks for half the time at what nobody has written; the machine code is the same without.
        extension.extra_compile_args.append("-Wno-all")
    return list(extensions)


setup(ext_modules=_extensions())
