"""`sallyport address`: addresses that nothing is sent to, and having them written to again."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime

from gateway.commands.common import add_config, add_json, as_json
from gateway.commands.opened import opened

BY = "command line"


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `address` to the command line."""
    parser = subparsers.add_parser(
        "address",
        help="list addresses that nothing is sent to, and release them",
        description="Addresses that bounced, or whose owner complained: nothing is sent to them any more.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="show them, the newest first")
    releasing = actions.add_parser("release", help="send to one of them again")
    releasing.add_argument("address", metavar="ADDRESS", help="as `list` shows it")
    releasing.add_argument("--channel", choices=("email", "sms"), default="email", help="email, the default, or sms")
    for each in (listing, releasing):
        add_config(each)
        add_json(each)


def run(args: argparse.Namespace) -> int:
    """Do it and return 0; 1 where there is no such address. Raises `ConfigError` for unfit stores, `StoreAway`."""
    import asyncio

    return asyncio.run(_list(args) if args.action == "list" else _release(args))


async def _list(args: argparse.Namespace) -> int:
    from gateway import settings
    from gateway.audit.visible import visible
    from gateway.core.identity import DEFAULT_TENANT
    from gateway.store.suppressed_table import every

    async with opened(settings.load(args.config, os.environ)) as (records, _):
        found = await every(records, DEFAULT_TENANT)
    if args.json:
        print(as_json([one._asdict() for one in found]))
        return 0
    for one in found:
        at = datetime.fromtimestamp(one.at, UTC).strftime("%Y-%m-%d %H:%MZ")
        print(f"{at}  {one.channel:5}  {one.why:10}  {visible(one.target)}")
    return 0


async def _release(args: argparse.Namespace) -> int:
    from gateway import settings
    from gateway.audit.deliveries import Deliveries
    from gateway.core.clock import SystemClock
    from gateway.core.identity import DEFAULT_TENANT

    async with opened(settings.load(args.config, os.environ)) as (records, recorder):
        deliveries = Deliveries(records, SystemClock(), recorder)
        released = await deliveries.release(DEFAULT_TENANT, args.channel, args.address, by=BY)
    if args.json:
        print(as_json({"address": args.address, "released": released}))
    else:
        print("it is sent to again" if released else "nothing keeps us from sending there")
    return 0 if released else 1
