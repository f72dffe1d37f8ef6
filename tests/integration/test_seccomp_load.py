"""The compiled default profile, loaded by Linux into a real process."""

import json
import subprocess
import sys
from pathlib import Path

from app.guest.capabilities import DEFAULT_CAPABILITIES
from app.guest.seccomp import compile_profile, default_profile
from app.guest.syscall_table import syscall_table

EPERM, ENOSYS = 1, 38

# Runs in a process of its own: a filter cannot be taken off again.
LOADER = r"""
import ctypes, json, os, socket, subprocess, sys, threading

class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

code = open(sys.argv[1], "rb").read()
numbers = json.loads(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(code, len(code))
program = Program(len(code) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0  # PR_SET_SECCOMP, by a filter

def errno_of(number, *arguments):
    ctypes.set_errno(0)
    values = [ctypes.c_ulong(value & 0xFFFFFFFFFFFFFFFF) for value in arguments]
    libc.syscall(ctypes.c_long(number), *values)
    return ctypes.get_errno()

result = {name: errno_of(numbers[name], -1, -1, -1, -1) for name in (
    "mount", "umount2", "keyctl", "add_key", "bpf", "unshare", "setns", "io_uring_setup",
    "kexec_load", "init_module", "userfaultfd", "clone3", "reboot")}
result["unknown"] = errno_of(600)
result["personality"] = errno_of(numbers["personality"], 0x1234)
result["personality_query"] = errno_of(numbers["personality"], 0xFFFFFFFF)
result["vsock"] = errno_of(numbers["socket"], 40, 1, 0)
result["vsock_hidden"] = errno_of(numbers["socket"], 1 << 32 | 40, 1, 0)
result["clone_newuser"] = errno_of(numbers["clone"], 0x10000000, 0, 0, 0, 0)
result["getppid"] = errno_of(numbers["getppid"])
with socket.socket(socket.AF_INET) as inet:
    inet.bind(("127.0.0.1", 0))
thread = threading.Thread(target=result.__setitem__, args=("thread", 0))
thread.start()
thread.join()
child = subprocess.run([sys.executable, "-Sc", "print(6 * 7)"], capture_output=True, text=True)
result["child"] = child.stdout.strip()
print(json.dumps(result))
"""


def test_default_profile_holds_a_real_process(tmp_path: Path) -> None:
    program = tmp_path / "filter"
    program.write_bytes(compile_profile(default_profile(), DEFAULT_CAPABILITIES))
    numbers = json.dumps(dict(syscall_table("x86_64")))
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(program), numbers],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    denied = (
        "mount umount2 keyctl add_key bpf unshare setns io_uring_setup kexec_load init_module "
        "userfaultfd reboot personality vsock vsock_hidden clone_newuser"
    ).split()
    assert json.loads(done.stdout) == {
        **dict.fromkeys(denied, EPERM),
        "clone3": ENOSYS,
        "unknown": ENOSYS,
        "personality_query": 0,
        "getppid": 0,
        "thread": 0,
        "child": "42",
    }
