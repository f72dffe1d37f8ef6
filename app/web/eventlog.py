"""Events as sentences: for the overview, the events page and the timeline of a container."""

import re
from dataclasses import dataclass

from app.domain.event import Event, EventType
from app.web import formats
from app.web.boot import TimelineMark
from app.web.states import Mark, start_path_text

_CONTAINER_TEXTS = {
    "create": "created",
    "start-requested": "start requested",
    "start": "running",
    "restart": "started again by its restart policy",
    "kill": "signal sent",
    "stop": "stop requested",
    "restarted": "restarted as asked for",
    "oom": "out of memory",
    "pause": "paused",
    "unpause": "resumed",
    "rename": "renamed",
    "destroy": "removed",
}
_VM_TEXTS = {
    "boot": "VM booting",
    "ready": "VM ready",
    "unresponsive": "guest silent",
    "responsive": "guest answers again",
    "end": "VM ended",
    "adopt": "VM found running and taken over",
}
_IMAGE_TEXTS = {
    "import": "imported",
    "tag": "tagged",
    "untag": "untagged",
    "delete": "deleted",
}
_MARKS = {
    "start-requested": Mark("busy", "busy", ""),
    "stop": Mark("busy", "busy", ""),
    "start": Mark("run", "run", ""),
    "template-failed": Mark("bad", "bad", "", is_vm=True),
    "pool-failed": Mark("bad", "bad", "", is_vm=True),
    "restart": Mark("run", "run", ""),
    "unpause": Mark("run", "run", ""),
    "pause": Mark("pause", "pause", ""),
    "oom": Mark("bad", "bad", ""),
    "create": Mark("new", "", ""),
    "boot": Mark("vbusy", "busy", "", is_vm=True),
    "ready": Mark("vrun", "run", "", is_vm=True),
    "adopt": Mark("vrun", "run", "", is_vm=True),
    "responsive": Mark("vrun", "run", "", is_vm=True),
    "unresponsive": Mark("vlost", "warn", "", is_vm=True),
    "end": Mark("voff", "", "", is_vm=True),
    "import": Mark("layers", "", ""),
    "tag": Mark("tag", "", ""),
}
_PLACES = {EventType.CONTAINER: "/containers/", EventType.VM: "/vms#vm-"}
_SHOWN_ATTRIBUTES = ("reason", "error", "oldName", "reference")
ATTRIBUTE_LIMIT_CHARACTERS = 200


@dataclass(frozen=True)
class EventRow:
    """One line of the journal."""

    id: int
    time_ns: int
    when: str
    mark: Mark
    name: str
    href: str
    text: str
    by: str


def event_text(event: Event) -> str:
    """What happened, in words; the attributes that say more follow."""
    words = {
        EventType.CONTAINER: _CONTAINER_TEXTS,
        EventType.VM: _VM_TEXTS,
        EventType.IMAGE: _IMAGE_TEXTS,
    }.get(event.type, {})
    attributes = event.attributes
    if event.action == "die":
        text = f"exited {attributes.get('exitCode', '?')}"
        if attributes.get("oomKilled"):
            text += ", out of memory"
    else:
        text = words.get(event.action, re.sub("[-_]", " ", event.action))
    extras = [attributes[key] for key in _SHOWN_ATTRIBUTES if attributes.get(key)]
    if "boot_ms" in attributes:
        extras.append(f"PID 1 after {attributes['boot_ms']} ms")
        if path := start_path_text(attributes.get("path", "")):
            extras.append(path)
    if event.action in {"stop", "kill"} and "signal" in attributes:
        extras = [f"signal {attributes['signal'].removeprefix('SIG')}"]
    if not extras:
        return text
    return f"{text}: {', '.join(extras)[:ATTRIBUTE_LIMIT_CHARACTERS]}"


def _event_mark(event: Event) -> Mark:
    if event.action == "die":
        facts = event.attributes
        # 137 and 143 are what a stop or kill leaves; what nobody asked for has more to say.
        is_quiet = facts.get("exitCode", "0") in {"0", "137", "143"}
        is_quiet = is_quiet and "oomKilled" not in facts and "error" not in facts
        return Mark("stop", "", "") if is_quiet else Mark("bad", "bad", "")
    return _MARKS.get(event.action, Mark("stop", "", ""))


def event_row(event: Event, *, with_day: bool = False) -> EventRow:
    """The event as a table row."""
    when = formats.day_and_clock(event.time_ns) if with_day else formats.clock(event.time_ns)
    place = _PLACES.get(event.type, "")
    is_linked = bool(place) and event.action not in {"destroy", "end"}
    return EventRow(
        id=event.id,
        time_ns=event.time_ns,
        when=when,
        mark=_event_mark(event),
        name=event.actor_name or event.actor_id[:12],
        href=f"{place}{event.actor_id[:12]}" if is_linked else "",
        text=event_text(event),
        by="" if event.initiator == "engine" else f"by {event.initiator}",
    )


def event_mark(event: Event) -> TimelineMark:
    """The event as a moment in the container's log."""
    text = event_text(event)
    if event.initiator != "engine":
        text += f" by {event.initiator}"
    lane = "vm" if event.type is EventType.VM else "event"
    return TimelineMark(event.time_ns, lane, text[:1].upper() + text[1:])
