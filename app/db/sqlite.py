"""Rules for every SQLite connection, the engine's and the migrations' alike."""

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

BUSY_TIMEOUT_MS = 5000
BEGIN_OPTION = "sqlite_begin"  # execution option: the statement that opens a transaction
BEGIN_WRITE = "BEGIN IMMEDIATE"  # a plain BEGIN that writes later fails at once when others write


def install_sqlite_rules(engine: Engine, *, foreign_keys: bool = True) -> None:
    """Set the pragmas on each connection and open transactions ourselves.

    The driver's own transactions would leave DDL outside and pragmas without effect, so the engine
    must have been made with `isolation_level=None`.

    Args:
        engine: A synchronous engine, or the one inside an asynchronous engine.
        foreign_keys: False for migrations only: replacing a table would otherwise delete the rows
            that refer to it.
    """

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
            cursor.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
        finally:
            cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(
            str(connection.get_execution_options().get(BEGIN_OPTION, "BEGIN"))
        )
