"""A launch said as a command: click once, automate after."""

import json
import pprint
import shlex
from dataclasses import dataclass, fields
from typing import Any

from app.domain.container_config import ContainerConfig

_DEFAULTS = ContainerConfig(image="")


@dataclass(frozen=True)
class Command:
    """One way to say it; `key` names its tab."""

    key: str
    label: str
    text: str


def request_body(config: ContainerConfig, name: str | None) -> dict[str, Any]:
    """The JSON body of POST /api/v1/containers?start=true, without what is at its default."""
    body: dict[str, Any] = {"image": config.image}
    if name:
        body["name"] = name
    for one in fields(config):
        value = getattr(config, one.name)
        if one.name != "image" and value != getattr(_DEFAULTS, one.name):
            body[one.name] = list(value) if isinstance(value, tuple) else value
    if "restart_policy" in body:
        body["restart_policy"] = str(config.restart_policy)
    return body


def launch_commands(config: ContainerConfig, name: str | None) -> tuple[Command, ...]:
    """The same launch by curl and by Python's standard library."""
    body = request_body(config, name)
    return (
        Command("curl", "curl", _curl(body)),
        Command("python", "Python", _python(body)),
    )


def _curl(body: dict[str, Any]) -> str:
    data = shlex.quote(json.dumps(body, indent=1, ensure_ascii=False))
    return (
        'curl -sS "$SLIPWAY/api/v1/containers?start=true" \\\n'
        '  -H "Authorization: Bearer $SLIPWAY_TOKEN" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d {data}"
    )


def _python(body: dict[str, Any]) -> str:
    literal = pprint.pformat(body, indent=1, width=60, sort_dicts=False)
    return (
        "import json, os, urllib.request\n\n"
        f"container = {literal}\n"
        "request = urllib.request.Request(\n"
        '    os.environ["SLIPWAY"] + "/api/v1/containers?start=true",\n'
        "    data=json.dumps(container).encode(),\n"
        '    headers={"Authorization": "Bearer " + os.environ["SLIPWAY_TOKEN"],\n'
        '             "Content-Type": "application/json"})\n'
        "print(json.load(urllib.request.urlopen(request)))"
    )
