"""A process that owns a VM as an engine does, to be killed (`python -m` this module).

Arguments: data directory, kernel, initrd. Prints the VM's id once the guest answers on the
channel, then keeps the channel until it is killed.
"""

import asyncio
import sys
from pathlib import Path

from tests.contract.guest_files import GuestFiles
from tests.contract.hypervisor_lab import Talk
from tests.contract.qemu_lab import QemuLab


async def own_vm(directory: Path, guest: GuestFiles) -> None:
    lab = QemuLab(directory, guest)
    vm = await lab.engine().create(lab.spec())
    async with Talk(vm) as talk:
        await talk.ask("echo up")
        sys.stdout.write(f"{vm.spec.id}\n")
        sys.stdout.flush()
        talk.tell("flood 1000000")  # more than anybody reads: the channel is torn in its midst
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(own_vm(Path(sys.argv[1]), GuestFiles(Path(sys.argv[2]), Path(sys.argv[3]))))
