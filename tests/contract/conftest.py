"""Fixtures of the contract suites."""

import pytest

from tests.contract.guest_files import GuestFiles, build_guest


@pytest.fixture(scope="session")
def guest_files(tmp_path_factory: pytest.TempPathFactory) -> GuestFiles:
    """Kernel and initramfs of guest_echo.c, built once."""
    return build_guest(tmp_path_factory.mktemp("guest"))
