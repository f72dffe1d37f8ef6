"""`slipway user` and `slipway token`: work on the data directory, with or without an engine."""

import argparse
import asyncio
import getpass
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from app.cli.configuration import read_settings
from app.core.errors import InvalidArgument
from app.settings import Settings
from app.storage.data_directory import DataDirectoryLock, find_engine

if TYPE_CHECKING:
    from app.services.accounts import AccountService

Work = Callable[["AccountService", argparse.Namespace], Awaitable[None]]


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `user` and `token`."""
    _add_user_commands(commands)
    _add_token_commands(commands)


def _add_user_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    user = commands.add_parser("user", help="who may sign in")
    actions = user.add_subparsers(metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make an account; asks for its password")
    password = actions.add_parser("password", help="set a password and end the user's sessions")
    remove = actions.add_parser("remove", help="remove an account with its sessions and tokens")
    for parser in (add, password, remove):
        parser.add_argument("name")
    for parser in (add, password):
        parser.add_argument(
            "--password-stdin", action="store_true", help="read the password from standard input"
        )
    add.set_defaults(run=_run(_add_user))
    password.set_defaults(run=_run(_set_password))
    remove.set_defaults(run=_run(_remove_user))
    actions.add_parser("list", help="list accounts").set_defaults(run=_run(_list_users))


def _add_token_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    token = commands.add_parser("token", help="tokens for scripts")
    actions = token.add_subparsers(metavar="ACTION", required=True)
    create = actions.add_parser("create", help="make a token and print it, this once")
    create.add_argument("name", help="what it is for")
    create.add_argument("--user", metavar="NAME", help="it goes when this user is removed")
    create.set_defaults(run=_run(_create_token))
    actions.add_parser("list", help="list tokens").set_defaults(run=_run(_list_tokens))
    revoke = actions.add_parser("revoke", help="make a token useless at once")
    revoke.add_argument("token", metavar="NAME|ID", help="a name means all tokens of that name")
    revoke.set_defaults(run=_run(_revoke_token))


@asynccontextmanager
async def open_accounts(settings: Settings) -> AsyncIterator["AccountService"]:
    """The accounts of the data directory; made or upgraded first if no engine has it open.

    Raises:
        SlipwayError: The data directory or its database can't be used.
    """
    from app.db.database import Database
    from app.db.migrate import upgrade_database
    from app.services.accounts import AccountService

    path = settings.data_dir / "slipway.db"
    async with AsyncExitStack() as stack:
        if await asyncio.to_thread(find_engine, settings.data_dir) is None:
            lock = await asyncio.to_thread(DataDirectoryLock.take, settings.data_dir)
            stack.callback(lock.close)
            await asyncio.to_thread(upgrade_database, path)
        database = Database(path)
        await database.open()
        stack.push_async_callback(database.close)
        yield AccountService(database)


def _run(work: Work) -> Callable[[argparse.Namespace], int]:
    """Make a command out of work on the accounts."""

    async def do(options: argparse.Namespace) -> None:
        async with open_accounts(read_settings()) as accounts:
            await work(accounts, options)

    def run(options: argparse.Namespace) -> int:
        if "password_stdin" in options:  # asked for before anything is locked
            options.password = read_password(from_stdin=options.password_stdin)
        asyncio.run(do(options))
        return 0

    return run


def read_password(*, from_stdin: bool) -> str:
    """A line of standard input, or asked for twice on the terminal.

    Raises:
        InvalidArgument: There is no terminal, or the two differ.
    """
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    if not sys.stdin.isatty():
        raise InvalidArgument(
            "There is no terminal to ask for the password.", advice="Give --password-stdin."
        )
    password = getpass.getpass("Password: ")
    if password != getpass.getpass("Again: "):
        raise InvalidArgument("The two passwords differ: nothing was changed.")
    return password


async def _add_user(accounts: "AccountService", options: argparse.Namespace) -> None:
    user = await accounts.add_user(options.name, options.password)
    print(f"Added {user.name}.")


async def _set_password(accounts: "AccountService", options: argparse.Namespace) -> None:
    await accounts.set_password(options.name, options.password)
    print(f"Changed the password of {options.name} and ended their sessions.")


async def _remove_user(accounts: "AccountService", options: argparse.Namespace) -> None:
    await accounts.remove_user(options.name)
    print(f"Removed {options.name}.")


async def _list_users(accounts: "AccountService", _: argparse.Namespace) -> None:
    rows = [(user.name, _moment(user.created_at_ns)) for user in await accounts.list_users()]
    _print_table(("NAME", "CREATED"), rows)


async def _create_token(accounts: "AccountService", options: argparse.Namespace) -> None:
    print((await accounts.create_token(options.name, options.user)).secret)


async def _list_tokens(accounts: "AccountService", _: argparse.Namespace) -> None:
    rows = [
        (
            str(token.id),
            token.name,
            token.user_name or "-",
            _moment(token.created_at_ns),
            _moment(token.last_used_at_ns),
        )
        for token in await accounts.list_tokens()
    ]
    _print_table(("ID", "NAME", "USER", "CREATED", "LAST USED"), rows)


async def _revoke_token(accounts: "AccountService", options: argparse.Namespace) -> None:
    reference: str = options.token
    await accounts.revoke_token(int(reference) if reference.isdecimal() else reference)
    print(f"Revoked {reference}.")


def _moment(time_ns: int | None) -> str:
    if time_ns is None:
        return "never"
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
