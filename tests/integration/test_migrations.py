import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.core.errors import CorruptData, ResourceExhausted, SlipwayError, Unsupported
from app.db import migrate
from app.db.migrate import migration_config, migration_engine, upgrade_database
from app.db.models import Base
from app.resources import migrations_dir

REVISIONS = [
    revision.revision
    for revision in reversed(list(ScriptDirectory.from_config(migration_config()).walk_revisions()))
]


def run(path: Path, direction: str, revision: str) -> None:
    engine = migration_engine(path)
    config = migration_config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        getattr(command, direction)(config, revision)
        connection.commit()
    engine.dispose()


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
        return {name for (name,) in rows}


def fill(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "INSERT INTO users VALUES (1, 'ann', 'hash', 1);"
            "INSERT INTO sessions VALUES ('aa', 1, 1, 1);"
            "INSERT INTO api_tokens VALUES (1, 'ci', 'bb', 1, 1, NULL);"
        )


def test_upgrade_of_nothing_makes_every_table(tmp_path: Path) -> None:
    path = tmp_path / "new" / "slipway.db"
    assert upgrade_database(path) is None
    assert tables(path) == {*Base.metadata.tables, "alembic_version"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_head_equals_the_models(tmp_path: Path) -> None:
    path = tmp_path / "slipway.db"
    upgrade_database(path)
    engine = migration_engine(path)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_checks_of_head_equal_the_models(tmp_path: Path) -> None:
    migrated, modelled = tmp_path / "migrated.db", tmp_path / "modelled.db"
    upgrade_database(migrated)
    engine = migration_engine(modelled)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
    engine.dispose()

    def checks(path: Path) -> set[str]:
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql LIKE '%CHECK%'")
            lines = [line.strip().rstrip(",") for (sql,) in rows for line in sql.splitlines()]
        return {line for line in lines if "CHECK" in line}

    assert checks(migrated) == checks(modelled) != set()


def test_upgrade_at_head_does_nothing(tmp_path: Path) -> None:
    path = tmp_path / "slipway.db"
    upgrade_database(path)
    before = path.read_bytes()
    assert upgrade_database(path) is None
    assert path.read_bytes() == before


@pytest.mark.parametrize("revision", REVISIONS)
def test_revision_goes_down_and_up_again(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "slipway.db"
    path.touch()
    run(path, "upgrade", revision)
    before = tables(path)
    if revision == REVISIONS[-1]:
        fill(path)
    run(path, "downgrade", "-1")
    run(path, "upgrade", revision)
    assert tables(path) == before


def test_upgrade_of_a_filled_database_copies_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slipway.db"
    versions = later_release(tmp_path, "op.add_column('users', sa.Column('colour', sa.Text()))")
    upgrade_database(path)
    fill(path)
    monkeypatch.setattr(migrate, "migrations_dir", lambda: versions)
    copy = upgrade_database(path)
    assert copy == tmp_path / "slipway.db.before-9999"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name, colour FROM users").fetchall() == [("ann", None)]
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT * FROM users").fetchall() == [(1, "ann", "hash", 1)]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_replacing_a_table_keeps_the_rows_that_refer_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slipway.db"
    versions = later_release(
        tmp_path,
        "with op.batch_alter_table('users', recreate='always') as batch:\n"
        "        batch.add_column(sa.Column('colour', sa.Text()))",
    )
    upgrade_database(path)
    fill(path)
    monkeypatch.setattr(migrate, "migrations_dir", lambda: versions)
    upgrade_database(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (1,)


def test_failing_upgrade_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slipway.db"
    versions = later_release(tmp_path, "op.drop_table('events'); op.drop_table('absent')")
    upgrade_database(path)
    monkeypatch.setattr(migrate, "migrations_dir", lambda: versions)
    with pytest.raises(SlipwayError, match="absent"):
        upgrade_database(path)
    assert tables(path) == {*Base.metadata.tables, "alembic_version"}


def test_upgrade_refuses_what_a_newer_release_wrote(tmp_path: Path) -> None:
    path = tmp_path / "slipway.db"
    upgrade_database(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'future'")
        connection.commit()
    with pytest.raises(Unsupported, match="future"):
        upgrade_database(path)


def test_upgrade_names_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "slipway.db"
    path.write_bytes(b"no database at all, whatever its name says" * 100)
    with pytest.raises(CorruptData, match=r"slipway\.db"):
        upgrade_database(path)


def test_upgrade_names_a_directory_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SlipwayError, match="Can't create database"):
        upgrade_database(tmp_path / "file" / "slipway.db")


def test_upgrade_without_space_for_the_copy_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slipway.db"
    versions = later_release(tmp_path, "op.drop_table('events')")
    upgrade_database(path)
    (tmp_path / "slipway.db.before-9999.part").mkdir()  # stands in the copy's way
    monkeypatch.setattr(migrate, "migrations_dir", lambda: versions)
    with pytest.raises(ResourceExhausted, match="copy"):
        upgrade_database(path)
    assert "events" in tables(path)


def later_release(tmp_path: Path, change: str) -> Path:
    """The migrations with one more revision, 9999, that makes the change."""
    directory = tmp_path / "migrations"
    (directory / "versions").mkdir(parents=True)
    ours = migrations_dir()
    for source in [ours / "env.py", *sorted((ours / "versions").glob("*.py"))]:
        (directory / source.relative_to(ours)).write_text(source.read_text())
    (directory / "versions" / "later.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = '9999'\ndown_revision = {REVISIONS[-1]!r}\n"
        f"def upgrade() -> None:\n    {change}\n"
    )
    return directory
