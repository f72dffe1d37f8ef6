import string
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.errors import Conflict, CorruptData, InvalidArgument, NotFound
from app.db.codec import (
    decode_boot_stages,
    decode_config,
    encode_boot_stages,
    encode_config,
)
from app.db.database import Database
from app.db.repositories.containers import ContainerRepository
from app.domain.container import Container, ContainerConfig, ContainerState
from app.domain.restart import RestartPolicy, RestartPolicyName
from app.domain.vm import BootStage

INT64 = st.integers(-(2**63), 2**63 - 1)
ANY_TEXT = st.text(st.characters())  # surrogates too: argv is bytes to Linux
WORDS = st.lists(ANY_TEXT, max_size=4).map(tuple)
NAMES = st.text(string.ascii_letters + string.digits + "_.-", min_size=2, max_size=20)

configs = st.builds(
    ContainerConfig,
    image=ANY_TEXT,
    command=st.none() | WORDS,
    entrypoint=st.none() | WORDS,
    env=WORDS,
    user=ANY_TEXT,
    working_dir=ANY_TEXT,
    hostname=ANY_TEXT,
    tty=st.booleans(),
    stdin_open=st.booleans(),
    labels=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=4),
    stop_signal=ANY_TEXT,
    stop_timeout_s=st.none() | st.integers(),
    memory_bytes=st.integers(0),
    cpus=st.floats(0, 256),
    pids_limit=st.integers(0),
    restart_policy=st.builds(RestartPolicy, st.sampled_from(RestartPolicyName), st.integers(0)),
    auto_remove=st.booleans(),
    init=st.booleans(),
    read_only_root=st.booleans(),
    cap_add=WORDS,
    cap_drop=WORDS,
    no_new_privileges=st.booleans(),
)
boot_stages = st.lists(
    st.builds(BootStage, ANY_TEXT, st.floats(allow_nan=False, allow_infinity=False)), max_size=4
).map(tuple)
containers = st.builds(
    Container,
    id=st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}"),
    name=NAMES,
    image_id=NAMES,
    config=configs,
    created_at_ns=INT64,
    state=st.sampled_from(ContainerState),
    pid=st.none() | INT64,
    exit_code=INT64,
    oom_killed=st.booleans(),
    error=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    started_at_ns=st.none() | INT64,
    finished_at_ns=st.none() | INT64,
    stopped_by_user=st.booleans(),
    restart_count=INT64,
    vm_id=st.none() | NAMES,
    boot_stages=boot_stages,
)
DATABASE_SETTINGS = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def container(number: int, name: str | None = None, **fields: object) -> Container:
    base = Container(
        id=f"{number:064x}",
        name=name or f"box-{number}",
        image_id="sha256:1",
        config=ContainerConfig(image="busybox"),
        created_at_ns=number,
    )
    return replace(base, **fields)  # type: ignore[arg-type]


@pytest.fixture
async def stored(database: Database) -> Database:
    async with database.write() as session:
        for number in (1, 2, 0x20):
            await ContainerRepository(session).add(container(number))
    return database


@given(configs)
def test_config_survives_the_codec(config: ContainerConfig) -> None:
    assert decode_config(encode_config(config)) == config


@given(boot_stages)
def test_boot_stages_survive_the_codec(stages: tuple[BootStage, ...]) -> None:
    assert decode_boot_stages(encode_boot_stages(stages)) == stages


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "[]",
        "{}",
        '{"version":1}',
        '{"version":1,"config":null}',
        '{"version":1,"config":{"image":"x"}}',
        '{"version":2,"config":{"image":"x"}}',
        '{"version":1,"config":{"image":"x","restart_policy":{"name":"y","maximum_retries":0}}}',
    ],
)
def test_config_of_another_shape_is_corrupt(encoded: str) -> None:
    with pytest.raises(CorruptData, match="config"):
        decode_config(encoded)


@DATABASE_SETTINGS
@given(containers, containers)
async def test_container_round_trip(
    database: Database, first: Container, second: Container
) -> None:
    async with database.write() as session:
        repository = ContainerRepository(session)
        await repository.add(first)
        assert await repository.get(first.id) == first
        changed = replace(second, id=first.id)
        await repository.save(changed)
    async with database.read() as reader:
        assert await ContainerRepository(reader).find(first.id) == changed
    async with database.write() as session:
        await ContainerRepository(session).delete(first.id)


async def test_error_text_that_no_database_holds_is_cleaned(database: Database) -> None:
    async with database.write() as session:
        repository = ContainerRepository(session)
        await repository.add(container(1, error="a\0b\udc80c"))
        assert (await repository.get(container(1).id)).error == "a\ufffdb\ufffdc"


async def test_add_refuses_a_taken_name_in_dockers_words(stored: Database) -> None:
    text = (
        f'Conflict. The container name "/box-1" is already in use by container "{1:064x}". You have'
        " to remove (or rename) that container to be able to reuse that name."
    )
    with pytest.raises(Conflict) as caught:
        async with stored.write() as session:
            await ContainerRepository(session).add(container(3, "box-1"))
    assert caught.value.message == text
    async with stored.read() as reader:
        assert len(await ContainerRepository(reader).list()) == 3


async def test_add_refuses_a_taken_id(stored: Database) -> None:
    with pytest.raises(Conflict, match="just made"):
        async with stored.write() as session:
            await ContainerRepository(session).add(container(1, "other"))


async def test_save_refuses_a_taken_name(stored: Database) -> None:
    with pytest.raises(Conflict, match="already in use"):
        async with stored.write() as session:
            await ContainerRepository(session).save(container(2, "box-1"))


async def test_save_and_delete_of_a_removed_container(stored: Database) -> None:
    async with stored.write() as session:
        repository = ContainerRepository(session)
        await repository.delete(container(1).id)
        with pytest.raises(NotFound, match=r"No such container: 0+1$"):
            await repository.delete(container(1).id)
        with pytest.raises(NotFound, match=r"No such container: 0+1$"):
            await repository.save(container(1))


@pytest.mark.parametrize("ref", [f"{2:064x}", f"{2:064x}"[:64], "box-2", "/box-2"])
async def test_find_by(stored: Database, ref: str) -> None:
    async with stored.read() as session:
        assert (await ContainerRepository(session).find(ref)).name == "box-2"


async def test_find_by_unique_prefix(stored: Database) -> None:
    async with stored.write() as session:
        repository = ContainerRepository(session)
        await repository.add(container(1, "apart", id=f"{0xAB << 248:064x}"))
        assert (await repository.find("a")).name == "apart"
        assert (await repository.find("ab00")).name == "apart"


async def test_find_prefers_a_name_to_a_prefix(stored: Database) -> None:
    async with stored.write() as session:
        repository = ContainerRepository(session)
        await repository.add(container(9, "0000"))
        assert (await repository.find("0000")).id == f"{9:064x}"


async def test_find_prefers_a_full_id_to_a_name(stored: Database) -> None:
    async with stored.write() as session:
        repository = ContainerRepository(session)
        await repository.add(container(9, f"{1:064x}"))
        assert (await repository.find(f"{1:064x}")).name == "box-1"


async def test_find_refuses_an_ambiguous_prefix(stored: Database) -> None:
    async with stored.read() as session:
        with pytest.raises(InvalidArgument, match="multiple IDs found with provided prefix: 00"):
            await ContainerRepository(session).find("00")


@pytest.mark.parametrize(
    "ref", ["", "%", "_ox-1", "box", "BOX-1", "f", "' OR 1=1", "é", "\ud800", "\0"]
)
async def test_find_of_nothing(stored: Database, ref: str) -> None:
    async with stored.read() as session:
        with pytest.raises(NotFound) as caught:
            await ContainerRepository(session).find(ref)
    assert caught.value.message == f"No such container: {ref}"


async def test_list_is_newest_first_and_filtered_by_state(stored: Database) -> None:
    async with stored.write() as session:
        repository = ContainerRepository(session)
        await repository.save(container(2, state=ContainerState.RUNNING))
        assert [found.name for found in await repository.list()] == ["box-32", "box-2", "box-1"]
        running = await repository.list(states={ContainerState.RUNNING, ContainerState.PAUSED})
        assert [found.name for found in running] == ["box-2"]
        assert await repository.list(states=()) == []
        assert await repository.count_by_state() == {
            ContainerState.CREATED: 2,
            ContainerState.RUNNING: 1,
        }


async def test_save_writes_what_is_not_as_it_was_before(stored: Database) -> None:
    async with stored.write() as session:
        repository = ContainerRepository(session)
        before = await repository.get(f"{2:064x}")
        stages = (BootStage("clone", 1.5),)
        config = replace(before.config, env=("A=b",))
        after = replace(before, name="other", config=config, boot_stages=stages, exit_code=3)
        await repository.save(after, before=before)
        assert await repository.get(before.id) == after
        await repository.save(replace(after, exit_code=4), before=after)
        assert await repository.get(before.id) == replace(after, exit_code=4)


async def test_save_refuses_a_taken_name_beside_what_was_before(stored: Database) -> None:
    async with stored.write() as session:
        repository = ContainerRepository(session)
        before = await repository.get(f"{2:064x}")
        with pytest.raises(Conflict, match="already in use"):
            await repository.save(replace(before, name="box-1"), before=before)
