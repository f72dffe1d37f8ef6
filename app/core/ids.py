"""Identifiers in Docker's form."""

import secrets

SHORT_ID_LENGTH = 12


def new_container_id() -> str:
    """64 lower-case hex digits, as Docker's."""
    return secrets.token_hex(32)


def new_vm_id() -> str:
    """12 lower-case hex digits: short, since it is part of socket paths (limit 107 bytes)."""
    return secrets.token_hex(6)


def short_id(container_id: str) -> str:
    """The 12 digits that people see."""
    return container_id[:SHORT_ID_LENGTH]
