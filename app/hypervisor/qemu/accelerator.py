"""Which accelerator really boots the guest on this host.

/dev/kvm may open, even make VMs, and yet never boot a stock kernel (a paravirtual KVM without
VMX): so KVM counts only after the real guest's agent has answered on it.
"""

import asyncio
import json
import logging
import os
import re
import subprocess
import textwrap
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from app.core.errors import PrerequisiteMissing, SlipwayError, Unavailable
from app.core.ids import new_vm_id
from app.core.units import MIB
from app.domain.vm import Accelerator
from app.hypervisor.port import ProbeGuest, VmSpec
from app.hypervisor.qemu.adoption import PROBE_LABEL
from app.hypervisor.qemu.identity import kvm_groups, resolve_identity
from app.hypervisor.qemu.vm import QemuVm
from app.hypervisor.steps import finish

log = logging.getLogger(__name__)

KVM_DEADLINE_S = 10.0
TCG_DEADLINE_S = 60.0
PROBE_MEMORY_BYTES = 256 * MIB
CACHE_NAME = "accelerator.json"
VERSION_DEADLINE_S = 10.0
SHOWN_CAUSE_CHARACTERS = 120

LaunchVm = Callable[[VmSpec, str], Awaitable[QemuVm]]


class AcceleratorChoice:
    """Finds out once, remembers on disk until kernel, CPU, QEMU or guest change."""

    def __init__(
        self,
        *,
        run_root: Path,
        setting: str,
        probe_guest: ProbeGuest | None,
        find_binary: Callable[[], str],
        user: str,
        launch: LaunchVm,
    ) -> None:
        self._cache_path = run_root / CACHE_NAME
        self._setting = setting
        self._guest = probe_guest
        self._find_binary = find_binary
        self._user = user
        self._launch = launch
        self._answer: Accelerator | None = None
        self._lock = asyncio.Lock()
        self._version: str | None = None

    async def get(self) -> Accelerator:
        """See Hypervisor.accelerator.

        Raises:
            PrerequisiteMissing: QEMU is not installed.
        """
        async with self._lock:
            if self._answer is None:
                self._answer = await self._find_out()
                log.info("Accelerator: %s: %s", self._answer.name, self._answer.reason)
            return self._answer

    async def _find_out(self) -> Accelerator:
        if self._setting != "auto":
            return Accelerator(
                self._setting, f"set by SLIPWAY_ACCELERATOR={self._setting}, not probed"
            )
        if self._guest is None:
            return Accelerator("tcg", "KVM is used only after the guest has booted on it once")
        key = await self._key(self._guest)
        remembered = await asyncio.to_thread(self._read_cache, key)
        if remembered is not None:
            return remembered
        answer = await self._probe(self._guest)
        await asyncio.to_thread(self._write_cache, key, answer)
        return answer

    async def _probe(self, guest: ProbeGuest) -> Accelerator:
        why_not = await asyncio.to_thread(self._why_kvm_is_closed)
        if not why_not:
            try:
                boot_ms = await self._boot(guest, "kvm", KVM_DEADLINE_S)
            except Unavailable as exc:
                log.warning("The guest does not boot on KVM: %s", exc.message)
                cause = textwrap.shorten(exc.message, SHOWN_CAUSE_CHARACTERS, placeholder=" ...")
                why_not = f"KVM is there, but the guest does not boot on it ({cause})"
            else:
                return Accelerator("kvm", "the guest has booted on KVM", boot_ms)
        reason = f"software emulation: {why_not}"
        try:
            boot_ms = await self._boot(guest, "tcg", TCG_DEADLINE_S)
        except Unavailable as exc:
            return Accelerator("tcg", f"{reason}; under emulation neither: {exc.message}")
        return Accelerator("tcg", reason, boot_ms)

    def _why_kvm_is_closed(self) -> str:
        try:
            kvm_groups(resolve_identity(self._user, "0" * 12))
        except PrerequisiteMissing as exc:
            return f"{exc.message}. {exc.advice}".strip()
        return ""

    async def _boot(self, guest: ProbeGuest, accelerator: str, deadline_s: float) -> float:
        """Boot the guest in a VM of its own; milliseconds from process start to its answer.

        Raises:
            Unavailable: It does not come up; says why. The VM is gone in any case.
        """
        spec = VmSpec(
            id=new_vm_id(),
            vcpus=1,
            memory_bytes=PROBE_MEMORY_BYTES,
            kernel=guest.kernel,
            initrd=guest.initrd,
            cmdline=guest.cmdline,
            disks=(),
            labels={PROBE_LABEL: accelerator},
        )
        vm: QemuVm | None = None
        started_s = time.monotonic()
        try:
            async with asyncio.timeout(deadline_s):
                vm = await self._launch(spec, accelerator)
                reader, writer = await vm.open_channel()
                if not await guest.is_alive(reader, writer):
                    raise Unavailable("its agent did not answer as it should")
        except TimeoutError as exc:
            raise Unavailable(f"its agent did not answer within {deadline_s:g} s") from exc
        except (OSError, EOFError) as exc:
            raise Unavailable(f"the channel broke: {exc}") from exc
        except SlipwayError as exc:
            raise Unavailable(exc.message) from exc
        finally:
            if vm is not None:
                await finish(vm.destroy())
        return (time.monotonic() - started_s) * 1000

    async def qemu_version(self) -> str:
        """Version number of the QEMU in use."""
        if self._version is None:
            self._version = await asyncio.to_thread(_read_version, self._find_binary())
        return self._version

    async def _key(self, guest: ProbeGuest) -> dict[str, str]:
        return {
            "kernel": os.uname().release,
            "cpu": await asyncio.to_thread(_cpu_model),
            "qemu": await self.qemu_version(),
            "guest": guest.key,
            "kvm": await asyncio.to_thread(self._why_kvm_is_closed),
        }

    def _read_cache(self, key: dict[str, str]) -> Accelerator | None:
        try:
            values = json.loads(self._cache_path.read_text())
            return Accelerator(**values["answer"]) if values["key"] == key else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _write_cache(self, key: dict[str, str], answer: Accelerator) -> None:
        try:
            self._cache_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self._cache_path.with_suffix(".new")
            temporary.write_text(json.dumps({"key": key, "answer": asdict(answer)}))
            temporary.replace(self._cache_path)
        except OSError as exc:
            log.warning("The accelerator found is not remembered: %s", exc)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def _read_version(binary: str) -> str:
    try:
        run = subprocess.run(
            [binary, "--version"],
            check=True,
            capture_output=True,
            text=True,
            timeout=VERSION_DEADLINE_S,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise PrerequisiteMissing(
            f"{binary} does not run: {exc}",
            advice="Install it anew: apt-get install qemu-system-x86",
        ) from exc
    match = re.search(r"version (\S+)", run.stdout)
    return match[1] if match else "unknown"
