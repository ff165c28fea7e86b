"""`sallyport`: one file per command in `gateway/commands/`.

Exit 0: good. 1: what was checked is bad, or what was asked for cannot be. 2: wrong usage, or a configuration that is
not fit to run with. Whatever is the operator's to mend is told in a line of its own, never as a traceback.
"""

from __future__ import annotations

import argparse
import difflib
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from gateway import __version__
from gateway.core.errors import ConfigError, SallyportError

COMMANDS = ("run", "check", "explain", "test", "schema", "user", "session", "recovery", "address", "key", "limit", "db")


class Parser(argparse.ArgumentParser):
    """Says what was probably meant, then how to ask for help."""

    def error(self, message: str) -> NoReturn:
        """Tell and exit 2."""
        self.exit(2, f"{self.prog}: {message}\n{self.prog} --help shows how\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    gc.set_threshold(200_000, 20, 50)  # what is imported stays: to look for garbage in it is a tenth of every start
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = Parser(prog="sallyport", description="An identity gateway in front of services that exist already.")
    parser.add_argument("--version", action="version", version=f"sallyport {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    modules = {name: importlib.import_module(f"gateway.commands.{name}") for name in COMMANDS}
    for module in modules.values():
        module.add(subparsers)
    if given and not given[0].startswith("-") and given[0] not in COMMANDS:
        near = difflib.get_close_matches(given[0], COMMANDS, n=1)
        known = f"did you mean `{near[0]}`?" if near else f"commands: {', '.join(COMMANDS)}"
        parser.error(f"`{given[0]}` is not a command; {known}")
    if not given:
        parser.print_help()
        return 2
    args = parser.parse_args(given)
    try:
        code: int = modules[args.command].run(args)
        sys.stdout.flush()
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 2
    except SallyportError as error:
        print(f"sallyport: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read us has seen enough; the interpreter must not find the pipe broken again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return code
