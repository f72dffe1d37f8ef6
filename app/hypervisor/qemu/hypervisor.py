"""QEMU behind the port."""

import asyncio
import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Literal

from app.core.errors import (
    Conflict,
    CorruptData,
    DeadlineExceeded,
    InvalidArgument,
    PrerequisiteMissing,
    ResourceExhausted,
    SlipwayError,
    Unavailable,
)
from app.domain.sizing import MEMORY_BLOCK_BYTES
from app.domain.vm import Accelerator
from app.hypervisor.port import Capabilities, ProbeGuest, Template, Vm, VmSpec
from app.hypervisor.qemu.accelerator import AcceleratorChoice
from app.hypervisor.qemu.adoption import Ended, Running, inspect, list_run_directories
from app.hypervisor.qemu.bounded import PipeDrain
from app.hypervisor.qemu.disks import is_lock_failure
from app.hypervisor.qemu.ended import EndedVm
from app.hypervisor.qemu.identity import resolve_identity
from app.hypervisor.qemu.launch import Launch, console_drain, stderr_file
from app.hypervisor.qemu.saved import SavedFiles
from app.hypervisor.qemu.template import (
    QemuTemplate,
    check_fits,
    check_usable,
    regain,
    remove_record,
    template_key,
    write_record,
)
from app.hypervisor.qemu.vm import QemuVm
from app.hypervisor.spec import check_spec
from app.hypervisor.steps import finish, run_whole

log = logging.getLogger(__name__)

BINARY = "qemu-system-x86_64"
UP_DEADLINE_S = 20.0  # from process start to QMP, before any guest code matters
ADOPT_DEADLINE_S = 3.0

AcceleratorSetting = Literal["auto", "kvm", "tcg"]


class QemuHypervisor:
    """VMs as QEMU processes, with their run directories under `run_root` (`<data dir>/v`).

    Args:
        run_root: Made on first use; accelerator.json in it keeps what the probe found.
        probe_guest: The real guest for `accelerator="auto"`; without one KVM is not trusted.
        accelerator: auto, or one that is forced.
        user: Who QEMU runs as when the engine is root; see `resolve_identity`.
        binary: QEMU's name on PATH, or its path.
    """

    name = "qemu"
    capabilities = Capabilities(
        disk_hot_add=True, snapshot=True, memory_block_bytes=MEMORY_BLOCK_BYTES
    )

    def __init__(
        self,
        *,
        run_root: Path,
        probe_guest: ProbeGuest | None = None,
        accelerator: AcceleratorSetting = "auto",
        user: str = "nobody",
        binary: str = BINARY,
    ) -> None:
        self._run_root = run_root
        self._user = user
        self._binary = binary
        self._vms: dict[str, QemuVm | EndedVm] = {}
        self._creating: set[str] = set()
        self._templates: dict[str, QemuTemplate] = {}
        self._savable: dict[str, SavedFiles] = {}  # of VMs made for_template, by id
        self._is_closed = False
        self._accelerator = AcceleratorChoice(
            run_root=run_root,
            setting=accelerator,
            probe_guest=probe_guest,
            find_binary=self._find_binary,
            user=user,
            launch=self._launch,
        )

    async def accelerator(self) -> Accelerator:
        """See the port; the answer is kept for this object's life, and on disk."""
        self._check_open()
        return await self._accelerator.get()

    async def version(self) -> str:
        """QEMU's version, such as "7.2.22".

        Raises:
            PrerequisiteMissing: QEMU is not installed.
        """
        return await self._accelerator.qemu_version()

    async def create(self, spec: VmSpec) -> Vm:
        """See the port."""
        self._check_open()
        check_spec(spec)
        self._creating.add(spec.id)
        try:
            vm = await self._launch(spec, (await self._accelerator.get()).name)
            self._vms[spec.id] = vm
        finally:
            self._creating.discard(spec.id)
        return vm

    async def save_template(self, vm: Vm) -> Template:
        """See the port."""
        self._check_open()
        files = self._savable.get(vm.spec.id)
        if files is None or not isinstance(vm, QemuVm):
            raise InvalidArgument(f"VM {vm.spec.id} was not created for a template")
        try:
            key = await self._key(vm.spec)
            await vm.save(files.state_fd)
            del self._savable[vm.spec.id]
        finally:
            await finish(self._end(vm))
        template = QemuTemplate(vm.spec, key, files, self._forget_template)
        try:
            await run_whole(files.seal)
            await run_whole(write_record, self._run_root, template)
        except OSError as exc:
            await template.close()
            raise Unavailable(f"The template could not be sealed: {exc.strerror}") from exc
        except BaseException:
            await template.close()
            raise
        self._templates[vm.spec.id] = template
        return template

    async def clone(self, template: Template, spec: VmSpec) -> Vm:
        """See the port."""
        self._check_open()
        check_spec(spec)
        if not isinstance(template, QemuTemplate):
            raise InvalidArgument("The template is another hypervisor's")
        check_fits(template, spec)
        check_usable(template, await self._key(template.spec))
        self._creating.add(spec.id)
        try:
            accelerator = (await self._accelerator.get()).name
            vm = await self._launch(spec, accelerator, template)
            self._vms[spec.id] = vm
        finally:
            self._creating.discard(spec.id)
        return vm

    async def regain_templates(self) -> list[Template]:
        """See the port."""
        self._check_open()
        accelerator, version = (await self._accelerator.get()).name, await self.version()
        pids = [vm.pid for vm in self._vms.values() if vm.pid is not None]
        found = await run_whole(
            regain,
            self._run_root,
            pids,
            known=set(self._templates),
            current_key=partial(template_key, accelerator=accelerator, version=version),
            on_closed=self._forget_template,
        )
        self._templates |= {template.spec.id: template for template in found}
        return list(found)

    async def _key(self, spec: VmSpec) -> str:
        accelerator, version = (await self._accelerator.get()).name, await self.version()
        return template_key(spec, accelerator=accelerator, version=version)

    async def _end(self, vm: QemuVm) -> None:
        await vm.destroy()
        self._forget(vm.spec.id)

    def _forget_template(self, template_id: str) -> None:
        if self._templates.pop(template_id, None) is not None and not self._is_closed:
            remove_record(self._run_root, template_id)

    async def _launch(
        self, spec: VmSpec, accelerator: str, template: QemuTemplate | None = None
    ) -> QemuVm:
        launch = Launch(
            self._run_root,
            spec,
            binary=self._find_binary(),
            accelerator=accelerator,
            identity=await asyncio.to_thread(resolve_identity, self._user, spec.id),
            template=template.files if template is not None else None,
            base_bytes=template.spec.memory_bytes if template is not None else None,
        )
        try:
            await run_whole(launch.start)
            vm = QemuVm(
                launch.directory,
                spec,
                launch.process,
                launch.record,
                console=launch.console,
                stderr=launch.stderr,
                on_discarded=self._forget,
                is_held=template is not None,
            )
        except BaseException:
            await run_whole(launch.undo)
            raise
        vm.begin()
        try:
            await self._bring_up(vm, launch, template)
        except BaseException as exc:
            stderr = await finish(vm.destroy())
            if launch.saved is not None:
                launch.saved.close()
            if isinstance(exc, CorruptData) and (words := " ".join(stderr.split())):
                raise CorruptData(f"{exc.message}: {words}") from exc
            if isinstance(exc, Unavailable):
                raise _launch_error(spec, stderr, exc) from exc
            raise
        if launch.saved is not None:
            self._savable[spec.id] = launch.saved
        return vm

    async def _bring_up(self, vm: QemuVm, launch: Launch, template: QemuTemplate | None) -> None:
        await self._wait_up(vm)
        if template is not None and launch.state_fd is not None:
            module_bytes = vm.spec.memory_bytes - template.spec.memory_bytes
            await vm.restore(launch.state_fd, module_bytes)

    async def _wait_up(self, vm: QemuVm) -> None:
        if not await vm.settle(UP_DEADLINE_S):
            raise DeadlineExceeded(
                f"QEMU of VM {vm.spec.id} did not answer within {UP_DEADLINE_S:g} s"
            )
        if vm.has_ended and not vm.was_up:
            raise Unavailable((await vm.wait()).detail)

    async def adopt(self) -> list[Vm]:
        """See the port."""
        self._check_open()
        paths = await asyncio.to_thread(list_run_directories, self._run_root)
        new = [path for path in paths if path.name not in self._vms | dict.fromkeys(self._creating)]
        for found in await asyncio.gather(*(run_whole(inspect, path) for path in new)):
            if isinstance(found, Ended):
                self._vms[found.spec.id] = EndedVm(found, on_discarded=self._forget)
            elif found is not None:
                self._vms[found.spec.id] = await self._take_over(found)
        running = [vm for vm in self._vms.values() if isinstance(vm, QemuVm)]
        for vm, is_known in zip(
            running,
            await asyncio.gather(*(vm.settle(ADOPT_DEADLINE_S) for vm in running)),
            strict=True,
        ):
            if not is_known:
                log.warning("VM %s runs, but its monitor does not answer", vm.spec.id)
        return list(self._vms.values())

    async def _take_over(self, found: Running) -> QemuVm:
        directory = found.directory
        console_fd = await run_whole(directory.open_pipe, "console.pipe")
        stderr_fd = await run_whole(directory.open_pipe, "stderr.pipe")
        vm = QemuVm(
            directory,
            found.spec,
            found.process,
            found.record,
            console=console_drain(directory, console_fd),
            stderr=PipeDrain(stderr_fd, stderr_file(directory)),
            on_discarded=self._forget,
        )
        vm.begin()
        return vm

    def _forget(self, vm_id: str) -> None:
        self._vms.pop(vm_id, None)
        files = self._savable.pop(vm_id, None)
        if files is not None:
            files.close()

    async def close(self) -> None:
        """See the port."""
        self._is_closed = True
        running = [vm for vm in self._vms.values() if isinstance(vm, QemuVm)]
        await asyncio.gather(*(vm.let_go() for vm in running))
        # Their records stay: the next engine may regain them.
        for files in [*self._savable.values(), *(one.files for one in self._templates.values())]:
            files.close()
        self._savable.clear()

    def _find_binary(self) -> str:
        path = shutil.which(self._binary)
        if path is None:
            raise PrerequisiteMissing(
                f"{self._binary} is not installed",
                advice="Install it: apt-get install qemu-system-x86",
            )
        return path

    def _check_open(self) -> None:
        if self._is_closed:
            raise Unavailable("The hypervisor has been closed")


def _launch_error(spec: VmSpec, stderr: str, exc: Unavailable) -> SlipwayError:
    """The kind of error that QEMU's words tell."""
    words = " ".join(stderr.split()) or exc.message
    if is_lock_failure(words):
        return Conflict(f"VM {spec.id}: a disk image is in use by another VM: {words}")
    if "Cannot allocate memory" in words or "cannot set up guest memory" in words:
        return ResourceExhausted(f"VM {spec.id}: the host has not enough memory: {words}")
    if isinstance(exc, DeadlineExceeded):
        return DeadlineExceeded(f"{exc.message}: {words}" if stderr.strip() else exc.message)
    return Unavailable(f"VM {spec.id} could not start: {words}")
