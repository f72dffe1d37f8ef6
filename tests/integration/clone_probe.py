"""The image whose one file is `clone_probe.c`, built and imported."""

import asyncio
import io
import tarfile
from pathlib import Path

from tests.integration.engine_process import EngineProcess

SOURCE = Path(__file__).with_name("clone_probe.c")
IMAGE = "clone-probe:1"
COMPILE_DEADLINE_S = 30


async def import_probe(engine: EngineProcess, directory: Path) -> None:
    """Compile the probe, and make it an image of the engine."""
    program = directory / "probe"
    compiler = await asyncio.create_subprocess_exec(
        "gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCE
    )
    async with asyncio.timeout(COMPILE_DEADLINE_S):
        assert await compiler.wait() == 0
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(program, "probe")
    answer = await engine.client.post(
        "/images", params={"reference": IMAGE}, content=archive.getvalue()
    )
    assert answer.status_code == 201, answer.text
