"""`sallyport run`: the gateway itself, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.settings import Settings


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `run` to the command line."""
    parser = subparsers.add_parser(
        "run",
        help="run the gateway",
        description="Run the gateway until SIGTERM or Ctrl-C; what is on its way then finishes first.",
    )
    parser.add_argument("--config", type=Path, help="configuration file (default: $SALLYPORT_CONFIG or config.yaml)")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")


def run(args: argparse.Namespace) -> int:
    """Load, start, serve, stop. Raises `ConfigError` for whatever is not fit to run with."""
    import logging
    import sys

    import uvloop

    from gateway import settings

    _fill_standard_streams()
    _raise_limit()
    logging.basicConfig(
        level=args.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Events are for machines: nothing before their JSON, and none left out.
    events = logging.getLogger("sallyport.events")
    events.addHandler(logging.StreamHandler(sys.stderr))
    events.setLevel(logging.INFO)
    events.propagate = False
    read = settings.load(args.config, os.environ)

    def serve(read: Settings, parent: int = -1) -> None:
        uvloop.run(_serve(read, parent))

    if read.workers > 1:
        from gateway.commands import workers

        return workers.run(read, serve)
    serve(read)
    return 0


def _raise_limit() -> None:
    """As many open files as the system lets us have: each connection is one, and the usual 1,024 are for programs that
    call select(2).
    """
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _fill_standard_streams() -> None:
    """Where one was closed, its number would go to the next thing opened: a socket, or the database, which would then
    be written to by whoever writes to standard error."""
    import sys

    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - open as long as we run
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


async def _serve(settings: Settings, parent: int) -> None:
    """Until told to stop, or until the descriptor `parent` ends; -1: there is none."""
    import asyncio
    import logging
    import signal

    from gateway.app import App

    log = logging.getLogger("sallyport")
    loop = asyncio.get_running_loop()
    asked_to_stop, hurry = asyncio.Event(), asyncio.Event()

    def stop(number: signal.Signals) -> None:
        # Whoever asks twice, or sits before it, does not want to wait for a balancer; or for anything, the third time.
        if asked_to_stop.is_set() or number == signal.SIGINT:
            hurry.set()
        asked_to_stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)

    if parent >= 0:

        def alone() -> None:
            loop.remove_reader(parent)
            stop(signal.SIGTERM)

        loop.add_reader(parent, alone)

    app = App(settings)
    await app.start()
    # What start-up has made stays; the collector need not look at it again, and rarely at the little that follows.
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)
    log.info(
        "listening on %s, admin on %s, %d rules",
        ", ".join(map(str, settings.listen)),
        settings.admin_listen or "nothing",
        len(app.book.rules),
    )
    await asked_to_stop.wait()
    app.wire.draining = True  # before it is said: each answer from here on tells that it is the last
    log.info("stopping: finishing what is on its way")
    await app.stop(settings.drain.time, settings.drain.delay, hurry)
