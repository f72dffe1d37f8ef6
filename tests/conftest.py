"""Fixtures that every test may use."""

import pytest

from tests.contract.guest_files import GuestFiles, build_guest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio, the loop of the engine."""
    return "asyncio"


@pytest.fixture(scope="session")
def guest_files(tmp_path_factory: pytest.TempPathFactory) -> GuestFiles:
    """Kernel and initramfs of tests/contract/guest_echo.c, built once, for tests of hypervisors."""
    return build_guest(tmp_path_factory.mktemp("guest"))
