"""Typed settings, from SLIPWAY_* environment variables.

Read once in `app.main` and `app.cli`, then passed down as values.
"""

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.core.units import GIB, MIB


class Settings(BaseSettings):
    """What an operator can set; every field is documented in docs/settings.md."""

    model_config = SettingsConfigDict(env_prefix="SLIPWAY_", extra="ignore")

    data_dir: Path = Field(
        default_factory=lambda: Path.home() / ".local/share/slipway",
        description="Everything Slipway keeps: database, images, logs, disks, run directories.",
    )
    host: str = Field(default="127.0.0.1", description="Address the dashboard listens on.")
    port: int = Field(default=8080, ge=1, le=65535, description="Port of the dashboard.")
    public_url: str = Field(
        default="",
        description="URL by which browsers reach it behind a proxy; empty: host and port.",
    )
    docker_group: str = Field(
        default="",
        description="Group that may use the Docker API's unix sockets; empty: the engine's own.",
    )
    docker_tcp: str = Field(
        default="",
        description="Loopback address and port of the Docker API without TLS; empty: none.",
    )
    docker_tls: str = Field(
        default="",
        description="Address and port of the Docker API for clients with a certificate.",
    )
    docker_tls_ca: str = Field(
        default="", description="PEM file of the authority that signs clients' certificates."
    )
    docker_tls_cert: str = Field(default="", description="PEM file of the server's certificate.")
    docker_tls_key: str = Field(default="", description="PEM file of the server's key.")
    registry_mirrors: str = Field(
        default="", description="URLs of mirrors of docker.io, asked in order before it."
    )
    registry_insecure: str = Field(
        default="",
        description="Registries or networks where certificates aren't checked and HTTP is tried.",
    )
    registry_ca: str = Field(
        default="",
        description="PEM file of more authorities for registries, or a directory like certs.d.",
    )
    default_memory_bytes: int = Field(
        default=GIB, ge=128 * MIB, description="VM memory of a container without a memory limit."
    )
    default_vcpus: int = Field(
        default=0, ge=0, description="vCPUs of a VM; 0 means min(host CPUs, 2)."
    )
    memory_reserve_bytes: int = Field(
        default=512 * MIB,
        ge=0,
        description="A start is refused when the host's available memory would fall below this.",
    )
    scratch_size_bytes: int = Field(
        default=20 * GIB, ge=64 * MIB, description="Size of a container's sparse scratch disk."
    )
    log_spill_bytes: int = Field(
        default=64 * MIB,
        ge=0,
        description="Ring on the scratch disk for output that no engine has acknowledged.",
    )
    log_retention_days: int = Field(
        default=30, ge=1, description="Days after which a day's log file is removed."
    )
    accelerator: str = Field(
        default="auto",
        pattern="^(auto|kvm|tcg)$",
        description="auto probes KVM with the real guest; kvm and tcg force one.",
    )
    boot_timeout_s: float = Field(
        default=60.0, gt=0, description="Seconds a guest may take from power-on to its agent."
    )
    templates: bool = Field(
        default=True,
        description="Start VMs as clones of one that was booted and saved; false boots each.",
    )
    pool_size: str = Field(
        default="auto",
        pattern="^(auto|[0-9]{1,3})$",
        description="How many warmed VMs wait for containers: auto follows demand, 0 is none.",
    )
    reclaim_idle_cache: bool = Field(
        default=True,
        description="Take page cache back from containers that have done nothing for a minute.",
    )
    stop_grace_s: int = Field(
        default=10, ge=0, description="Seconds between the stop signal and SIGKILL, unless given."
    )
    qemu_user: str = Field(
        default="2000000000-2000065535",
        description="Who QEMU runs as when the engine is root: a user, or a range of user ids from "
        "which each VM gets its own.",
    )

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        """A relative directory means the same one for every process, wherever it works."""
        return value.expanduser().absolute()
