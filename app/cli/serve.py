"""`slipway serve`."""

import argparse
import asyncio
import logging
import signal
import sys

from app.cli.configuration import read_settings


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `serve`."""
    serve = commands.add_parser(
        "serve",
        help="run engine, dashboard and REST until ^C",
        description="Runs engine, dashboard and REST. Containers go on when it ends.",
    )
    serve.set_defaults(run=run_serve)


def say(line: str) -> None:
    """Print at once: the output may be a pipe or a journal."""
    print(line, flush=True)


def run_serve(_: argparse.Namespace) -> int:
    """Serve until a signal; ^C and SIGTERM are the ordinary ends."""
    from app.main import serve

    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    # The server raises the signal that ended it once more when it has closed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return asyncio.run(serve(read_settings(), say=say))
    except KeyboardInterrupt:
        return 0
