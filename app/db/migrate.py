"""Brings the database file to the newest revision, at boot and from the command line.

Blocking: call it in a thread.
"""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from app.core.errors import CorruptData, ResourceExhausted, SlipwayError, Unsupported
from app.db.faults import database_fault
from app.db.sqlite import BEGIN_OPTION, BEGIN_WRITE, install_sqlite_rules
from app.resources import migrations_dir

COPIES_KEPT = 3


def migration_config() -> Config:
    """Alembic's configuration, without a database."""
    config = Config()
    config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    return config


def migration_engine(path: Path) -> Engine:
    """A synchronous engine as migrations need it; the caller disposes of it."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=NullPool,
        connect_args={"isolation_level": None},
        execution_options={BEGIN_OPTION: BEGIN_WRITE},
    )
    install_sqlite_rules(engine, foreign_keys=False)
    return engine


def upgrade_database(path: Path) -> Path | None:
    """Bring the file to the newest revision, creating it (mode 0600) if it is missing.

    A file that has rows is copied first, to `<name>.before-<revision>` beside it. All revisions
    are one transaction: after a failure the file is as it was.

    Returns:
        The copy, or None if nothing had to be saved.

    Raises:
        Unsupported: A newer release wrote the file.
        CorruptData: It is not a database, or rows refer to what does not exist.
        ResourceExhausted: No space for the copy or the upgrade.
    """
    _create_private(path)
    engine = migration_engine(path)
    try:
        current, head = _revisions(engine, path)
        if current == head:
            return None
        saved = _copy(path, head) if current is not None else None
        config = migration_config()
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
        with engine.connect() as connection:
            if broken := connection.execute(text("PRAGMA foreign_key_check")).first():
                raise CorruptData(
                    f"Database {path} has a row in {broken[0]} that refers to a missing one",
                    advice="Restore the data directory from a backup.",
                )
    except SQLAlchemyError as error:
        raise database_fault(error, str(path)) from error
    finally:
        engine.dispose()
    return saved


def _create_private(path: Path) -> None:
    """Make an empty file that only its owner reads: it will hold password hashes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise SlipwayError(
            f"Can't create database {path}: {error.strerror}",
            advice="Check that the data directory exists and belongs to the user Slipway runs as.",
        ) from error


def _revisions(engine: Engine, path: Path) -> tuple[str | None, str]:
    script = ScriptDirectory.from_config(migration_config())
    head = script.get_current_head()
    if head is None:
        raise SlipwayError(f"No migrations in {migrations_dir()}: the installation is incomplete")
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    known = {revision.revision for revision in script.walk_revisions()}
    if current is not None and current not in known:
        raise Unsupported(
            f"Database {path} is at revision {current}, which this release does not know",
            advice="Use the release of Slipway that wrote it, or restore an older copy.",
        )
    return current, head


def _copy(path: Path, head: str) -> Path:
    """Copy a consistent state, whatever its write-ahead log holds."""
    target = path.with_name(f"{path.name}.before-{head}")
    unfinished = path.with_name(f"{path.name}.before-{head}.part")
    try:
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600)
        with (
            closing(sqlite3.connect(path)) as source,
            closing(sqlite3.connect(unfinished)) as destination,
        ):
            source.backup(destination)
        unfinished.replace(target)
        copies = sorted(path.parent.glob(f"{path.name}.before-*"), key=lambda f: f.stat().st_mtime)
        for old in copies[:-COPIES_KEPT]:
            old.unlink()
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            unfinished.unlink()
        raise ResourceExhausted(
            f"Can't copy database {path} before its upgrade: {error}",
            advice="Free space on the disk of the data directory, then start again.",
        ) from error
    return target
