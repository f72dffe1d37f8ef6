"""QEMU on Linux: one process per VM, spoken to by QMP; see hypervisor.py for the way in."""
