"""Alembic's entry: runs revisions on the connection given by app.db.migrate.

From the command line (`alembic revision --autogenerate`, `alembic check`) it works on the database
of the data directory that the settings name.
"""

from typing import Literal

from alembic import context
from sqlalchemy import Connection

from app.db.migrate import migration_engine
from app.db.models import Base, PlainText
from app.settings import Settings

DATABASE_NAME = "slipway.db"


def render_type(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Write our own types as what they are in the database: revisions import nothing of `app`."""
    if kind == "type" and isinstance(item, PlainText):
        return f"sa.{item.impl!r}"
    return False


def run_migrations(connection: Connection) -> None:
    """Run the revisions asked for; SQLite alters tables by replacing them."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        render_item=render_type,
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    """Use the connection given, or open one."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        run_migrations(connection)
        return
    engine = migration_engine(Settings().data_dir / DATABASE_NAME)
    try:
        with engine.connect() as own_connection:
            run_migrations(own_connection)
            own_connection.commit()
    finally:
        engine.dispose()


main()
