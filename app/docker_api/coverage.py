"""Which operations of the Docker Engine API there are, and how each differs from Docker.

docs/docker-api.md shows this table; a test holds it against the routes.
"""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a client meets."""

    SAME = "as Docker"
    DIFFERENT = "with differences"
    REFUSED = "refused with a text"
    ABSENT = "as a Docker without it"
    NOT_YET = "not yet (404)"


@dataclass(frozen=True)
class Operation:
    """One operation; paths as in Docker's reference."""

    method: str
    path: str
    verdict: Verdict
    deviation: str = ""


_SAME, _DIFFERENT = Verdict.SAME, Verdict.DIFFERENT
_REFUSED, _NOT_YET = Verdict.REFUSED, Verdict.NOT_YET
_NO_VOLUMES = "There are no volumes in this release."
_NO_NETWORK = "Containers have no network card in this release; there is the network `none`."

_CONTAINERS = (
    Operation(
        "GET",
        "/containers/json",
        _DIFFERENT,
        "`SizeRw` is what the scratch disk takes on the host, the file system's bookkeeping "
        "included; `Ports` is empty.",
    ),
    Operation(
        "POST",
        "/containers/create",
        _DIFFERENT,
        "See “What a create can ask for” below.",
    ),
    Operation(
        "GET",
        "/containers/{id}/json",
        _DIFFERENT,
        "`Pid` is the VM's process. Paths of the host (`LogPath`, `HostsPath`, `GraphDriver.Data`) "
        "are empty. `Health` of a container that ended before the engine's last start is gone.",
    ),
    Operation(
        "GET",
        "/containers/{id}/top",
        _DIFFERENT,
        "Numbers of processes are the guest's; users other than root are numbers. `ps_args` may be "
        "`-ef`, `aux` and their like, or `-o` with names of columns.",
    ),
    Operation(
        "GET",
        "/containers/{id}/logs",
        _DIFFERENT,
        "`details` is ignored. Retention is the engine's (`SLIPWAY_LOG_RETENTION_DAYS`), whatever "
        "`max-size` and `max-file` say.",
    ),
    Operation("GET", "/containers/{id}/changes", _SAME),
    Operation("GET", "/containers/{id}/export", _SAME),
    Operation(
        "GET",
        "/containers/{id}/stats",
        _DIFFERENT,
        "As with cgroup v2. `system_cpu_usage` is the time of the VM's CPUs; all page cache counts "
        "as `inactive_file`; there is no `networks`.",
    ),
    Operation("POST", "/containers/{id}/resize", _SAME),
    Operation("POST", "/containers/{id}/start", _DIFFERENT, "Checkpoints are refused."),
    Operation("POST", "/containers/{id}/stop", _SAME),
    Operation("POST", "/containers/{id}/restart", _SAME),
    Operation("POST", "/containers/{id}/kill", _SAME),
    Operation(
        "POST",
        "/containers/{id}/update",
        _DIFFERENT,
        "0 leaves a value as it is, also `PidsLimit`. A container that runs can't get more memory "
        "or CPUs than its VM has: 409.",
    ),
    Operation("POST", "/containers/{id}/rename", _SAME),
    Operation("POST", "/containers/{id}/pause", _SAME),
    Operation("POST", "/containers/{id}/unpause", _SAME),
    Operation("POST", "/containers/{id}/attach", _SAME),
    Operation("GET", "/containers/{id}/attach/ws", _SAME),
    Operation("POST", "/containers/{id}/wait", _SAME),
    Operation(
        "DELETE", "/containers/{id}", _DIFFERENT, "`v` has nothing to do; `link` finds no link."
    ),
    Operation("HEAD", "/containers/{id}/archive", _SAME),
    Operation(
        "GET",
        "/containers/{id}/archive",
        _DIFFERENT,
        "Of a running container also what is in its tmpfs mounts; extended attributes are kept "
        "(`user.`, capabilities, ACLs), not capabilities alone.",
    ),
    Operation(
        "PUT",
        "/containers/{id}/archive",
        _DIFFERENT,
        "`copyUIDGID` looks users up in the container, not on the host; blocks of zeros become "
        "holes.",
    ),
    Operation("POST", "/containers/prune", _SAME),
    Operation("POST", "/containers/{id}/exec", _SAME),
    Operation("POST", "/exec/{id}/start", _SAME),
    Operation("POST", "/exec/{id}/resize", _SAME),
    Operation("GET", "/exec/{id}/json", _SAME),
)
_IMAGES = (
    Operation(
        "GET", "/images/json", _DIFFERENT, "There are no parents and no intermediate images."
    ),
    Operation("POST", "/build", _NOT_YET),
    Operation("POST", "/build/prune", _DIFFERENT, "There is no cache of builds."),
    Operation(
        "POST",
        "/images/create",
        _DIFFERENT,
        "`fromSrc=-` imports a root filesystem; nothing is fetched from URLs. An image of several "
        "platforms is kept for the one that is pulled.",
    ),
    Operation(
        "GET",
        "/images/{name}/json",
        _DIFFERENT,
        "`GraphDriver.Data` is empty, `LastTagTime` unknown.",
    ),
    Operation("GET", "/images/{name}/history", _SAME),
    Operation(
        "POST",
        "/images/{name}/push",
        _DIFFERENT,
        "Layers go as they are kept: what was pulled keeps its digests, what was imported or "
        "loaded uncompressed is not compressed.",
    ),
    Operation("POST", "/images/{name}/tag", _SAME),
    Operation(
        "DELETE",
        "/images/{name}",
        _DIFFERENT,
        "An image that a stopped container uses is never deleted, even by force: it loses its "
        "names and goes once the container is gone and it is removed again.",
    ),
    Operation("GET", "/images/search", _REFUSED, "There is no index to search."),
    Operation("POST", "/images/prune", _SAME),
    Operation(
        "GET",
        "/images/{name}/get",
        _DIFFERENT,
        "An OCI layout with Docker's `manifest.json`, layers compressed as they are stored.",
    ),
    Operation("GET", "/images/get", _DIFFERENT, "Likewise."),
    Operation("POST", "/images/load", _SAME),
    Operation(
        "POST",
        "/commit",
        _DIFFERENT,
        "`pause` freezes the processes without the state `paused`, and without its events.",
    ),
    Operation("GET", "/distribution/{name}/json", _SAME),
)
_SYSTEM = (
    Operation("POST", "/auth", _SAME),
    Operation("GET", "/info", _DIFFERENT, "Tells of the engine, its hypervisor and the guest."),
    Operation("GET", "/version", _DIFFERENT, "Likewise."),
    Operation("GET", "/_ping", _SAME),
    Operation("HEAD", "/_ping", _SAME),
    Operation(
        "GET",
        "/events",
        _DIFFERENT,
        "Of containers and images only, without `attach`, `detach` and `resize`. `since` reaches "
        "back over the whole journal, for execs over the last 256.",
    ),
    Operation("GET", "/system/df", _DIFFERENT, "There are no volumes and no cache of builds."),
    Operation(
        "POST", "/session", _REFUSED, "No BuildKit inside: `DOCKER_BUILDKIT=0`, or buildx's own."
    ),
)
_STORAGE_AND_NETWORKS = (
    Operation("GET", "/volumes", _DIFFERENT, _NO_VOLUMES),
    Operation("POST", "/volumes/create", _REFUSED, _NO_VOLUMES),
    Operation("GET", "/volumes/{name}", _DIFFERENT, "404 for every name."),
    Operation("DELETE", "/volumes/{name}", _DIFFERENT, "Likewise."),
    Operation("POST", "/volumes/prune", _DIFFERENT, _NO_VOLUMES),
    Operation("GET", "/networks", _DIFFERENT, _NO_NETWORK),
    Operation("GET", "/networks/{id}", _DIFFERENT, _NO_NETWORK),
    Operation("DELETE", "/networks/{id}", _SAME),
    Operation("POST", "/networks/create", _REFUSED, _NO_NETWORK),
    Operation("POST", "/networks/{id}/connect", _REFUSED, _NO_NETWORK),
    Operation("POST", "/networks/{id}/disconnect", _REFUSED, _NO_NETWORK),
    Operation("POST", "/networks/prune", _SAME),
)


def _absent(*operations: str) -> tuple[Operation, ...]:
    pairs = (operation.split(" ") for operation in operations)
    return tuple(Operation(method, path, Verdict.ABSENT) for method, path in pairs)


_WITHOUT = _absent(
    "PUT /volumes/{name}",
    "GET /plugins",
    "GET /plugins/privileges",
    "POST /plugins/pull",
    "GET /plugins/{name}/json",
    "DELETE /plugins/{name}",
    "POST /plugins/{name}/enable",
    "POST /plugins/{name}/disable",
    "POST /plugins/{name}/upgrade",
    "POST /plugins/create",
    "POST /plugins/{name}/push",
    "POST /plugins/{name}/set",
    "GET /nodes",
    "GET /nodes/{id}",
    "DELETE /nodes/{id}",
    "POST /nodes/{id}/update",
    "GET /swarm",
    "POST /swarm/init",
    "POST /swarm/join",
    "POST /swarm/leave",
    "POST /swarm/update",
    "GET /swarm/unlockkey",
    "POST /swarm/unlock",
    "GET /services",
    "POST /services/create",
    "GET /services/{id}",
    "DELETE /services/{id}",
    "POST /services/{id}/update",
    "GET /services/{id}/logs",
    "GET /tasks",
    "GET /tasks/{id}",
    "GET /tasks/{id}/logs",
    "GET /secrets",
    "POST /secrets/create",
    "GET /secrets/{id}",
    "DELETE /secrets/{id}",
    "POST /secrets/{id}/update",
    "GET /configs",
    "POST /configs/create",
    "GET /configs/{id}",
    "DELETE /configs/{id}",
    "POST /configs/{id}/update",
)

OPERATIONS = (*_CONTAINERS, *_IMAGES, *_SYSTEM, *_STORAGE_AND_NETWORKS, *_WITHOUT)


def support_table() -> str:
    """The table in Markdown, for docs/docker-api.md."""
    lines = ["| operation | support | differences |", "|---|---|---|"]
    lines += [
        f"| `{each.method} {each.path}` | {each.verdict} | {each.deviation} |"
        for each in (*_CONTAINERS, *_IMAGES, *_SYSTEM, *_STORAGE_AND_NETWORKS)
    ]
    lines.append(
        f"| the {len(_WITHOUT)} of plugins, Swarm, services, nodes, tasks, secrets and configs | "
        f"{Verdict.ABSENT} | |"
    )
    return "\n".join(lines) + "\n"
