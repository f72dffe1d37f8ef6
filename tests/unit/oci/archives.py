"""Archives for tests, built by the standard library or by hand: never by the code under test."""

import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Item:
    """One tar entry to be written."""

    name: str
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_700_000_000
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str] = field(default_factory=dict)


def directory(name: str, **more: Any) -> Item:
    """A directory entry."""
    return Item(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **more})


def symlink(name: str, target: str) -> Item:
    """A symbolic link."""
    return Item(name, type=tarfile.SYMTYPE, link=target, mode=0o777)


def hard_link(name: str, target: str) -> Item:
    """A hard link."""
    return Item(name, type=tarfile.LNKTYPE, link=target)


def make_tar(*items: Item, format: int = tarfile.PAX_FORMAT) -> bytes:
    """A whole tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for item in items:
            info = tarfile.TarInfo(item.name)
            info.type, info.linkname, info.size = item.type, item.link, len(item.data)
            info.mode, info.uid, info.gid, info.mtime = item.mode, item.uid, item.gid, item.mtime
            info.devmajor, info.devminor = item.device
            info.pax_headers = dict(item.pax)
            tar.addfile(info, io.BytesIO(item.data))
    return buffer.getvalue()


def raw_header(name: bytes, flag: bytes = b"0", size_bytes: int = 0, **fields: bytes) -> bytes:
    """A ustar header by hand; `fields` overrides raw fields, the checksum is made to fit."""
    header = bytearray(512)
    values = {
        "name": name[:100],
        "mode": b"0000644\0",
        "uid": b"0000000\0",
        "gid": b"0000000\0",
        "size": b"%011o\0" % size_bytes,
        "mtime": b"00000000000\0",
        "flag": flag,
        "magic": b"ustar\x0000",
        **fields,
    }
    offsets = {
        "name": 0, "mode": 100, "uid": 108, "gid": 116, "size": 124, "mtime": 136, "flag": 156,
        "link": 157, "magic": 257, "major": 329, "minor": 337, "prefix": 345,
    }  # fmt: skip
    for key, value in values.items():
        header[offsets[key] : offsets[key] + len(value)] = value
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def raw_entry(name: bytes, data: bytes = b"", flag: bytes = b"0", **fields: bytes) -> bytes:
    """A header with its padded content."""
    return raw_header(name, flag, len(data), **fields) + data + bytes(-len(data) % 512)


def pax_record(key: bytes, value: bytes) -> bytes:
    """One PAX record."""
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


END = bytes(1024)


def sha256(data: bytes) -> str:
    """Digest text."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def hexdigest(data: bytes) -> str:
    """Digest digits."""
    return hashlib.sha256(data).hexdigest()


def image_config(layers: Sequence[bytes], **more: Any) -> bytes:
    """A configuration for uncompressed layers."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-05-06T07:08:09.123456789Z",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
        **more,
    }
    return json.dumps(document).encode()


def docker_archive(
    layers: Sequence[bytes],
    tags: Sequence[str] = ("app:1",),
    *,
    config: bytes | None = None,
    is_old_form: bool = False,
    manifest_first: bool = False,
) -> bytes:
    """What `docker save` writes: `<id>/layer.tar` (old) or `blobs/sha256/<hex>` (new)."""
    config = config if config is not None else image_config(layers)
    items: list[Item] = []
    names = []
    for number, layer in enumerate(layers):
        if is_old_form:
            folder = hashlib.sha256(b"%d" % number + layer).hexdigest()
            names.append(f"{folder}/layer.tar")
            items += [
                directory(folder),
                Item(f"{folder}/VERSION", b"1.0"),
                Item(f"{folder}/json", b"{}"),
                Item(names[-1], layer),
            ]
        else:
            names.append(f"blobs/sha256/{hexdigest(layer)}")
            items.append(Item(names[-1], layer))
    config_name = (
        f"{hexdigest(config)}.json" if is_old_form else f"blobs/sha256/{hexdigest(config)}"
    )
    items.append(Item(config_name, config))
    manifest = json.dumps([{"Config": config_name, "RepoTags": list(tags), "Layers": names}])
    item = Item("manifest.json", manifest.encode())
    items = [item, *items] if manifest_first else [*items, item]
    if is_old_form:
        items.append(Item("repositories", b'{"app":{"1":"x"}}'))
    return make_tar(*items)


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    """An OCI descriptor of `data`."""
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


OCI = "application/vnd.oci.image."


@dataclass
class OciLayout:
    """An OCI layout being put together."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: list[dict[str, Any]] = field(default_factory=list)

    def add(self, data: bytes) -> bytes:
        """Keep a blob."""
        self.blobs[hexdigest(data)] = data
        return data

    def image(
        self,
        layers: Sequence[bytes],
        *,
        blobs: Sequence[bytes] | None = None,
        layer_type: str = f"{OCI}layer.v1.tar",
        config: bytes | None = None,
    ) -> bytes:
        """Keep an image's blobs; gives its manifest. `blobs` are the layers as stored."""
        config = self.add(config if config is not None else image_config(layers))
        stored = [self.add(blob) for blob in (blobs or layers)]
        return self.add(
            json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": f"{OCI}manifest.v1+json",
                    "config": descriptor(config, f"{OCI}config.v1+json"),
                    "layers": [descriptor(blob, layer_type) for blob in stored],
                }
            ).encode()
        )

    def name(self, manifest: bytes, ref_name: str | None = None, **more: Any) -> None:
        """List a manifest in index.json."""
        if ref_name is not None:
            more["annotations"] = {"org.opencontainers.image.ref.name": ref_name}
        self.manifests.append(descriptor(manifest, f"{OCI}manifest.v1+json", **more))

    def archive(self, *more: Item) -> bytes:
        """The whole as a tar."""
        index = json.dumps({"schemaVersion": 2, "manifests": self.manifests}).encode()
        return make_tar(
            *(Item(f"blobs/sha256/{name}", data) for name, data in self.blobs.items()),
            Item("index.json", index),
            Item("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            *more,
        )


def bytes_id(value: object) -> str | None:
    """Test ids without kilobytes of archive in them."""
    return "data" if isinstance(value, bytes) else None


async def stream(data: bytes, chunk_bytes: int = 65536) -> AsyncIterator[bytes]:
    """Bytes as an upload brings them."""
    for start in range(0, len(data), chunk_bytes):
        yield data[start : start + chunk_bytes]
