from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests.rig.ports import HERE, SLICE, free_port

ROOT = Path(__file__).resolve().parents[2]
TAKING = f"from tests.rig.ports import free_port; print(*(free_port() for _ in range({SLICE // 2})))"


def test_none_is_given_twice_in_a_row_and_none_that_is_taken() -> None:
    given = [free_port() for _ in range(SLICE // 2)]
    assert len(set(given)) == len(given)
    with socket.socket() as taken:
        taken.bind((HERE, given[0]))
        assert given[0] not in {free_port() for _ in range(SLICE)}


def test_another_run_of_tests_is_given_others() -> None:
    given = {free_port() for _ in range(SLICE // 2)}
    said = subprocess.run([sys.executable, "-c", TAKING], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    others = {int(port) for port in said.split()}
    assert len(others) == SLICE // 2
    assert not {port // SLICE for port in given} & {port // SLICE for port in others}
