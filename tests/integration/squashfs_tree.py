"""What a layer disk holds, told by unsquashfs (a tool of others, not by the code under test)."""

import subprocess
from pathlib import Path


def list_disk(path: Path) -> dict[str, str]:
    """Names relative to the root, each with `mode uid/gid [size or device] [-> target]`."""
    done = subprocess.run(
        ["unsquashfs", "-lln", "-d", "", path], check=True, capture_output=True, timeout=30
    )
    tree: dict[str, str] = {}
    for line in done.stdout.decode("utf-8", "surrogateescape").splitlines():
        fields = line.split(None, 2)
        if len(fields) == 3 and fields[0][0] in "-dlcbps" and len(fields[0]) == 10:
            mode, owner, rest = fields
            device = mode[0] in "cb"
            parts = rest.split(None, 4 if device else 3)
            size = "".join(parts[:2]) if device else parts[0]
            name, _, target = parts[-1].partition(" -> ") if "/" in parts[-1] else ("", "", "")
            words = [mode, owner] if mode[0] == "d" else [mode, owner, size]
            tree[name] = " ".join(words) + (f" -> {target}" if target else "")
    return tree


def read_file(path: Path, name: str) -> bytes:
    """A file's content."""
    return subprocess.run(
        ["unsquashfs", "-cat", path, name], check=True, capture_output=True, timeout=30
    ).stdout
