"""Real browsers, and for each test a gateway of its own with its service and users.

Without Chromium these tests are skipped, and the last lines of the run say so.
`SALLYPORT_SCREENSHOTS=folder` keeps pictures of every page, wide and narrow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.browser import CHROMIUM, DRIVER, Browser
from tests.e2e.house import House, open_house

LEFT_OUT = "no chromium and chromedriver here: apt-get install chromium chromium-driver"


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a house looks like when ann and bob have moved in."""
    folder = tmp_path_factory.mktemp("furnished")
    with open_house(folder):
        return folder


@pytest.fixture
def house(tmp_path: Path, furnished: Path) -> Iterator[House]:
    with open_house(tmp_path, furnished) as one:
        yield one


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser process; starting one costs more than most tests."""
    yield from start(tmp_path_factory)


@pytest.fixture(scope="session")
def second_chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Another, with cookies of its own."""
    yield from start(tmp_path_factory)


@pytest.fixture
def browser(chromium: Browser, house: House) -> Iterator[Browser]:
    """A browser that was never here before; at the end its console must be empty."""
    yield from visiting(chromium, house)


@pytest.fixture
def other(second_chromium: Browser, house: House) -> Iterator[Browser]:
    """A second browser, on somebody's other desk."""
    yield from visiting(second_chromium, house)


def visiting(one: Browser, house: House) -> Iterator[Browser]:
    one.forget()
    one.url = house.url
    yield one
    assert one.complaints() == []


def start(folders: pytest.TempPathFactory) -> Iterator[Browser]:
    if not (CHROMIUM and DRIVER):
        pytest.skip(LEFT_OUT)
    pictures = os.environ.get("SALLYPORT_SCREENSHOTS")
    if pictures:
        Path(pictures).mkdir(parents=True, exist_ok=True)
    one = Browser(folders.mktemp("profile"), Path(pictures) if pictures else None)
    yield one
    one.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test leaves a picture and the page behind."""
    report = yield
    if (
        report.when == "call"
        and report.failed
        and isinstance(chromium := getattr(item, "funcargs", {}).get("browser"), Browser)
    ):
        folder = item.funcargs["tmp_path"]
        with suppress(Exception):  # the browser itself may be what failed
            chromium.picture(folder / "failed.png")
            (folder / "failed.html").write_text(chromium.source)
            report.sections.append(("browser", f"{chromium.path}\n{chromium.text}\n(a picture is in {folder})"))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if LEFT_OUT in str(report.longrepr)]
    if skipped:
        terminalreporter.section("LEFT OUT", sep="!", red=True)
        terminalreporter.line(f"{len(skipped)} tests in a real browser did not run: {LEFT_OUT}", red=True)
