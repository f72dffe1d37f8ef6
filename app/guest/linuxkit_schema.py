"""What a LinuxKit file may hold, and a check of a file against it.

The shapes follow LinuxKit's own JSON schema (src/cmd/linuxkit/moby/schema.go): every object is
closed, so a misspelt key is an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.guest.yaml_nodes import Node


@dataclass(frozen=True)
class Shape:
    """The form of a value.

    Attributes:
        kinds: Scalar types that are taken; empty for lists and objects.
        words: If not empty, the only strings that are taken.
        item: Form of a list's items.
        keys: Forms of an object's values by key.
        any_key: Form of the values of an object whose keys are free.
        required: Keys that must be there.
    """

    kinds: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    item: "Shape | None" = None
    keys: "Mapping[str, Shape] | None" = None
    any_key: "Shape | None" = None
    required: tuple[str, ...] = field(default=())


def _object(required: tuple[str, ...] = (), /, **keys: Shape) -> Shape:
    return Shape(keys=keys, required=required)


def _list(item: Shape) -> Shape:
    return Shape(item=item)


_TEXT = Shape(kinds=("string",))
_NUMBER = Shape(kinds=("integer",))
_FLAG = Shape(kinds=("boolean",))
_ID = Shape(kinds=("string", "integer"))
_TEXTS = _list(_TEXT)
_TEXT_BY_KEY = Shape(any_key=_TEXT)

_ID_MAPPINGS = _list(_object(hostID=_NUMBER, containerID=_NUMBER, size=_NUMBER))
_MOUNTS = _list(
    _object(
        type=_TEXT,
        source=_TEXT,
        destination=_TEXT,
        options=_TEXTS,
        uidmappings=_ID_MAPPINGS,
        gidmappings=_ID_MAPPINGS,
    )
)
_DEVICES = _list(_object(path=_TEXT, type=_TEXT, major=_NUMBER, minor=_NUMBER, mode=_TEXT))

_RATES = _list(_object(major=_NUMBER, minor=_NUMBER, rate=_NUMBER))
_RESOURCES = _object(
    devices=_list(
        _object(allow=_FLAG, type=_TEXT, major=_NUMBER, minor=_NUMBER, access=_TEXT),
    ),
    memory=_object(
        limit=_NUMBER,
        reservation=_NUMBER,
        swap=_NUMBER,
        swappiness=_NUMBER,
        kernel=_NUMBER,
        kernelTCP=_NUMBER,
        disableOOMKiller=_FLAG,
    ),
    cpu=_object(
        shares=_NUMBER,
        quota=_NUMBER,
        period=_NUMBER,
        realtimeRuntime=_NUMBER,
        realtimePeriod=_NUMBER,
        cpus=_TEXT,
        mems=_TEXT,
    ),
    pids=_object(limit=_NUMBER),
    blockio=_object(
        weight=_NUMBER,
        leafWeight=_NUMBER,
        weightDevice=_list(
            _object(major=_NUMBER, minor=_NUMBER, weight=_NUMBER, leafWeight=_NUMBER)
        ),
        throttleReadBpsDevice=_RATES,
        throttleWriteBpsDevice=_RATES,
        throttleReadIOPSDevice=_RATES,
        throttleWriteIOPSDevice=_RATES,
    ),
    hugepageLimits=_list(_object(pageSize=_NUMBER, limit=_NUMBER)),
    network=_object(
        classID=_NUMBER,
        priorities=_list(_object(name=_TEXT, priority=_NUMBER)),
    ),
)

_RUNTIME = _object(
    cgroups=_TEXTS,
    mounts=_MOUNTS,
    mkdir=_TEXTS,
    interfaces=_list(_object(name=_TEXT, add=_TEXT, peer=_TEXT, createInRoot=_FLAG)),
    bindNS=_object(cgroup=_TEXT, ipc=_TEXT, mnt=_TEXT, net=_TEXT, pid=_TEXT, user=_TEXT, uts=_TEXT),
    namespace=_TEXT,
)

_IMAGE = Shape(
    required=("name", "image"),
    keys={
        "name": _TEXT,
        "image": _TEXT,
        # The process.
        "command": _TEXTS,
        "env": _TEXTS,
        "cwd": _TEXT,
        "uid": _ID,
        "gid": _ID,
        "additionalGids": _list(_ID),
        "capabilities": _TEXTS,
        "capabilities.add": _TEXTS,
        "ambient": _TEXTS,
        "noNewPrivileges": _FLAG,
        "oomScoreAdj": _NUMBER,
        "rlimits": _TEXTS,
        # What it sees.
        "mounts": _MOUNTS,
        "binds": _TEXTS,
        "binds.add": _TEXTS,
        "tmpfs": _TEXTS,
        "devices": _DEVICES,
        "readonly": _FLAG,
        "maskedPaths": _TEXTS,
        "readonlyPaths": _TEXTS,
        "rootfsPropagation": _TEXT,
        # Namespaces.
        "net": _TEXT,
        "pid": _TEXT,
        "ipc": _TEXT,
        "uts": _TEXT,
        "userns": _TEXT,
        "hostname": _TEXT,
        "uidMappings": _ID_MAPPINGS,
        "gidMappings": _ID_MAPPINGS,
        # The rest.
        "cgroupsPath": _TEXT,
        "resources": _RESOURCES,
        "sysctl": _TEXT_BY_KEY,
        "annotations": _TEXT_BY_KEY,
        "runtime": _RUNTIME,
    },
)
_IMAGES = _list(_IMAGE)

LINUXKIT = _object(
    kernel=_object(image=_TEXT, cmdline=_TEXT, binary=_TEXT, tar=_TEXT, ucode=_TEXT),
    init=_TEXTS,
    onboot=_IMAGES,
    onshutdown=_IMAGES,
    services=_IMAGES,
    volumes=_list(
        _object(
            name=_TEXT,
            image=_TEXT,
            readonly=_FLAG,
            format=Shape(words=("oci", "filesystem")),
            platforms=_TEXTS,
        )
    ),
    files=_list(
        _object(
            path=_TEXT,
            directory=_FLAG,
            symlink=_TEXT,
            contents=_TEXT,
            source=_TEXT,
            metadata=_TEXT,
            optional=_FLAG,
            mode=_TEXT,
            uid=_ID,
            gid=_ID,
        )
    ),
    trust=_object(image=_TEXTS, org=_TEXTS),
)


def check_shape(node: Node, shape: Shape) -> list[tuple[int, str]]:
    """Every fault of a value and of what is in it, as line and message; empty if it fits."""
    value = node.value
    if shape.kinds or shape.words:
        return _check_scalar(node, shape)
    if shape.item is not None:
        if not isinstance(value, list):
            return [(node.line, f"{_name(node)} must be a list")]
        return [fault for item in value for fault in check_shape(item, shape.item)]
    if not isinstance(value, dict):
        return [(node.line, f"{_name(node)} must be an object (lines `key: value`)")]
    return _check_keys(node, value, shape)


def _check_keys(node: Node, value: dict[str, Node], shape: Shape) -> list[tuple[int, str]]:
    faults = [
        (node.line, f"{_name(node)} lacks {key}") for key in shape.required if key not in value
    ]
    for key, child in value.items():
        expected = shape.any_key if shape.keys is None else shape.keys.get(key)
        if expected is None:
            known = ", ".join(sorted(shape.keys or ()))
            faults.append((child.line, f"{child.path} is unknown to LinuxKit (known: {known})"))
        else:
            faults += check_shape(child, expected)
    return faults


def _check_scalar(node: Node, shape: Shape) -> list[tuple[int, str]]:
    value = node.value
    if shape.words:
        if value in shape.words:
            return []
        return [(node.line, f"{_name(node)} must be one of {', '.join(shape.words)}")]
    kind = _kind(value)
    if kind in shape.kinds:
        return []
    wanted = " or ".join(shape.kinds)
    hint = ""
    if "string" in shape.kinds and kind in ("integer", "number", "boolean"):
        hint = "; put it in quotes"
    return [(node.line, f"{_name(node)} must be a {wanted}, not {kind}{hint}")]


def _kind(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case None:
            return "nothing"
        case list():
            return "a list"
        case _:
            return "an object"


def _name(node: Node) -> str:
    return node.path or "the file"
