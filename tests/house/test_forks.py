"""What is forked is what `python -m gateway` would have been."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.house.forks import Forked
from tests.house.process import Home, home, until

DAC_OVERRIDE = 1 << 1


@pytest.fixture
def here() -> Iterator[Home]:
    with home() as one:
        yield one


@pytest.mark.parametrize(
    "arguments", [("--version",), ("check",), ("chekc",), ("user", "list"), ("run", "--config", "nowhere.yaml"), ()]
)
async def test_it_says_and_ends_as_one_that_is_started_anew(here: Home, arguments: tuple[str, ...]) -> None:
    forked = await here.call(*arguments)
    here.anew = True
    assert forked == await here.call(*arguments)
    assert forked.out or forked.err


async def test_it_is_told_what_the_other_would_be(here: Home) -> None:
    """On standard input, and by its environment."""
    (here.folder / "config.yaml").rename(here.folder / "other.yaml")
    here.environ["SALLYPORT_CONFIG"] = "other.yaml"
    said = await here.call("user", "add", "ann", "--password-stdin", stdin=b"correct horse battery staple\n")
    assert said.code == 0, said.err
    here.anew = True
    assert "ann" in (await here.call("user", "list")).out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 0)])
async def test_signals_end_it(here: Home, number: signal.Signals, code: int) -> None:
    async with here.serving() as serving:
        process = serving.process
        assert isinstance(process, Forked)
        assert process.returncode is None
        process.send_signal(number)
        assert await serving.ended() == process.returncode == code
        with pytest.raises(ProcessLookupError):
            process.kill()
        await until(lambda: not os.path.exists(f"/proc/{process.pid}"))


async def test_nothing_of_the_tests_is_open_in_it(here: Home) -> None:
    """Or what they close would stay open."""
    with open(here.folder / "kept", "w"):
        async with here.serving() as serving:
            folder = f"/proc/{serving.process.pid}"
            opened = [os.readlink(f"{folder}/fd/{number}") for number in os.listdir(f"{folder}/fd")]
            with open(f"{folder}/status") as file:
                status = dict(line.split(":", 1) for line in file)
    assert any(name.endswith("sallyport.db") for name in opened)
    assert not any(name.endswith("kept") for name in opened)
    if os.geteuid() == 0:
        for which in ("CapEff", "CapPrm", "CapBnd"):
            assert not int(status[which], 16) & DAC_OVERRIDE
    assert int(status["PPid"]) != os.getpid()
