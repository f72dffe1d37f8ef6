"""The command `slipway`: parses arguments, calls one function, prints errors for people.

Commands import what they need when they run: `slipway --version` must not load a web server.
"""

import argparse
import sys
from collections.abc import Sequence

from app import __version__
from app.cli import accounts, data, guest, machine, upkeep
from app.cli import serve as serving
from app.core.errors import SlipwayError

EXIT_FAILED = 1
EXIT_USAGE = 2  # as argparse
EXIT_INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="slipway",
        description="Runs every Linux container in a micro-VM of its own.",
        epilog="Settings are SLIPWAY_* environment variables; see docs/settings.md.",
    )
    parser.add_argument("--version", action="version", version=f"slipway {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (serving, machine, guest, accounts, upkeep, data):
        module.add_commands(commands)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=_print_version)
    return parser


def _print_version(_: argparse.Namespace) -> int:
    print(f"slipway {__version__}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code.

    0: done. 1: it failed, and stderr says what and what to do. 2: the arguments make no sense.
    """
    options = build_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except SlipwayError as exc:
        return show_error(exc)
    except KeyboardInterrupt:
        print("slipway: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: nothing to tell, nobody to tell it
        return EXIT_FAILED
    return code


def show_error(error: SlipwayError) -> int:
    """Print what failed and what to do; returns the exit code for it."""
    print(f"slipway: {error.message}", file=sys.stderr)
    if error.advice:
        print(f"  {error.advice}", file=sys.stderr)
    return EXIT_FAILED
