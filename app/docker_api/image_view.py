"""Images as Docker shows them: list, inspect, history."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from app.docker_api.container_view import STORAGE_DRIVER, healthcheck_view
from app.docker_api.times import ZERO_TIME
from app.docker_api.versions import ApiVersion
from app.domain.image import Image, ImageConfig
from app.oci.store import StoredDocument

EMPTY_LISTS_SINCE = ApiVersion(1, 43)
MISSING = "<missing>"
NONE_TAG = "<none>:<none>"
NONE_DIGEST = "<none>@<none>"


def list_view(
    image: Image, tags: Sequence[str], version: ApiVersion, *, shared_bytes: int, users: int
) -> dict[str, Any]:
    """An image in the list.

    Args:
        image: What to show.
        tags: Those of its names that a filter left.
        version: Older clients want a word where a list is empty.
        shared_bytes: In layers that others have, too; -1: not reckoned.
        users: Containers; -1: not counted.
    """
    digests = repo_digests(image)
    if version < EMPTY_LISTS_SINCE and not tags:
        tags, digests = [NONE_TAG], digests or [NONE_DIGEST]
    return {
        "Containers": users,
        "Created": created_s(image),
        "Id": image.id,
        "Labels": dict(image.config.labels) or None,
        "ParentId": "",
        "RepoDigests": digests,
        "RepoTags": list(tags),
        "SharedSize": shared_bytes,
        "Size": image.size_bytes,
    }


def created_s(image: Image) -> int:
    """Seconds since the epoch; 0 if nobody knows."""
    return int(image.created.timestamp()) if image.created is not None else 0


def tags_of(image: Image) -> list[str]:
    """Its names as people write them."""
    return [name.familiar for name in image.references if name.tag is not None]


def repo_digests(image: Image) -> list[str]:
    """Names by digest, which only a registry gives."""
    return [
        f"{name.familiar_name}@{name.digest}"
        for name in image.references
        if name.digest is not None
    ]


def shared_sizes(images: Iterable[Image], layers: dict[str, int]) -> dict[str, int]:
    """By image: bytes in layers that another image has, too.

    Args:
        images: All there are.
        layers: Sizes by diff_id.
    """
    all_images = list(images)
    uses = Counter(diff_id for image in all_images for diff_id in set(image.diff_ids))
    return {
        image.id: sum(
            layers.get(diff_id, 0) for diff_id in set(image.diff_ids) if uses[diff_id] > 1
        )
        for image in all_images
    }


def inspect_view(image: Image, stored: StoredDocument) -> dict[str, Any]:
    """All of it."""
    document = stored.json
    view = {
        "Id": image.id,
        "RepoTags": tags_of(image),
        "RepoDigests": repo_digests(image),
        "Parent": _text(document, "parent"),
        "Comment": _text(document, "comment"),
        "Created": _text(document, "created") or ZERO_TIME,
        "DockerVersion": _text(document, "docker_version"),
        "Author": _text(document, "author"),
        "Config": config_view(image.config, document.get("config")),
        "Architecture": image.architecture,
    }
    if variant := _text(document, "variant"):
        view["Variant"] = variant
    return view | {
        "Os": image.os,
        "Size": image.size_bytes,
        "GraphDriver": {"Data": {}, "Name": STORAGE_DRIVER},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": ZERO_TIME},
    }


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def config_view(config: ImageConfig, raw: object) -> dict[str, Any]:
    """An image's settings in the form of a container's."""
    view: dict[str, Any] = {
        "Hostname": "",
        "Domainname": "",
        "User": config.user,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
    }
    if config.exposed_ports:
        view["ExposedPorts"] = {port: {} for port in config.exposed_ports}
    view |= {
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": list(config.env) or None,
        "Cmd": list(config.cmd) or None,
    }
    if config.healthcheck is not None:
        view["Healthcheck"] = healthcheck_view(config.healthcheck)
    view |= {
        "Image": "",
        "Volumes": {path: {} for path in config.volumes} or None,
        "WorkingDir": config.working_dir,
        "Entrypoint": list(config.entrypoint) or None,
        "OnBuild": raw.get("OnBuild") if isinstance(raw, dict) else None,
        "Labels": dict(config.labels) or None,
    }
    if config.stop_signal:
        view["StopSignal"] = config.stop_signal
    if config.shell:
        view["Shell"] = list(config.shell)
    return view


def history_view(image: Image, stored: StoredDocument) -> list[dict[str, Any]]:
    """Its steps, newest first; of an image without a history, its layers."""
    steps = stored.json.get("history")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        steps = []
    if not steps:
        steps = [{"created": stored.json.get("created")} for _ in image.diff_ids]
    sizes = iter(stored.layer_sizes_bytes)
    views: list[dict[str, Any]] = [
        {
            "Comment": _text(step, "comment"),
            "Created": _seconds(step.get("created")),
            "CreatedBy": _text(step, "created_by"),
            "Id": MISSING,
            "Size": 0 if step.get("empty_layer") else next(sizes, 0),
            "Tags": None,
        }
        for step in steps
    ]
    views.reverse()
    views[0] |= {"Id": image.id, "Tags": tags_of(image) or None}
    return views


def _seconds(value: object) -> int:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return 0
    if moment is None:
        return 0
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
