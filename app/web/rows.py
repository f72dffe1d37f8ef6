"""A container as a table row: the same values for the page, its fragments and live updates."""

from dataclasses import dataclass

from app.domain.container import Container, ContainerState
from app.services.stats import ContainerSample
from app.web import formats
from app.web.states import Group, Mark, container_mark, group_of

SPARK_WIDTH = 72
SPARK_HEIGHT = 20
SPARK_SAMPLES = 60
WARN_SHARE = 0.8
BAD_SHARE = 0.95
NOTHING = "–"
ROW_MACROS = "_macros/rows.html"


@dataclass(frozen=True)
class Meter:
    """A bar of 100 units: how much of a limit is used, and the class that colours it."""

    used: float
    css_class: str
    text: str


@dataclass(frozen=True)
class Numbers:
    """What changes each second; texts, so that only a changed text is sent."""

    cpu: str
    memory: tuple[str, str]
    uptime: str
    spark: str
    meter: Meter | None


@dataclass(frozen=True)
class ContainerRow:
    """One row of the list."""

    id: str
    short_id: str
    name: str
    image: str
    mark: Mark
    silent: bool
    blocked: bool
    numbers: Numbers
    reason: str
    can_start: bool
    can_stop: bool


def spark_path(samples: tuple[ContainerSample, ...]) -> str:
    """SVG path of the last minute's CPU, scaled to one CPU, or to the highest value above."""
    values = [sample.cpu_percent for sample in samples[-SPARK_SAMPLES:]]
    if len(values) < 2:
        return ""
    top = max(100.0, *values)
    step = SPARK_WIDTH / (SPARK_SAMPLES - 1)
    start = SPARK_WIDTH - step * (len(values) - 1)
    points = (
        f"{start + index * step:.1f} {(SPARK_HEIGHT - 1) - value / top * (SPARK_HEIGHT - 3):.1f}"
        for index, value in enumerate(values)
    )
    return "M" + " ".join(points)


def limit_meter(used_bytes: int, limit_bytes: int) -> Meter | None:
    """The bar beside the memory; None where there is no limit to measure against."""
    if limit_bytes <= 0:
        return None
    share = min(used_bytes / limit_bytes, 1.0)
    css_class = "f-bad" if share >= BAD_SHARE else "f-warn" if share >= WARN_SHARE else "f-app"
    return Meter(round(share * 100, 1), css_class, f"of {formats.size(limit_bytes)}")


def uptime_text(container: Container, now_ns: int) -> str:
    """How long it has run, or since when it has not."""
    if container.state is ContainerState.STARTING:
        return NOTHING
    if container.is_live and container.started_at_ns:
        return formats.age(container.started_at_ns, now_ns)
    if container.finished_at_ns:
        return f"{formats.age(container.finished_at_ns, now_ns)} ago"
    return NOTHING


def row_numbers(container: Container, samples: tuple[ContainerSample, ...], now_ns: int) -> Numbers:
    """The row's numbers now; without a sample they are dashes, never zeros."""
    latest = samples[-1] if samples and container.is_live else None
    uptime = uptime_text(container, now_ns)
    if latest is None:
        return Numbers(NOTHING, (NOTHING, ""), uptime, "", None)
    limit_bytes = container.config.memory_bytes or latest.memory_limit_bytes
    return Numbers(
        cpu=formats.percent(latest.cpu_percent),
        memory=formats.size_parts(max(latest.memory_bytes, 0)),
        uptime=uptime,
        spark=spark_path(samples),
        meter=limit_meter(latest.memory_bytes, limit_bytes if limit_bytes < 2**50 else 0),
    )


def container_row(
    container: Container, samples: tuple[ContainerSample, ...], now_ns: int
) -> ContainerRow:
    """All a row shows."""
    return ContainerRow(
        id=container.id,
        short_id=container.short_id,
        name=container.name,
        image=container.config.image,
        mark=container_mark(container),
        silent=container.unresponsive_since_ns is not None,
        blocked=container.backpressure_since_ns is not None,
        numbers=row_numbers(container, samples, now_ns),
        reason=container.error,
        can_start=container.state in {ContainerState.CREATED, ContainerState.EXITED},
        can_stop=container.state
        in {
            ContainerState.STARTING,
            ContainerState.RUNNING,
            ContainerState.PAUSED,
            ContainerState.RESTARTING,
        },
    )


def number_patch(row_id: str, numbers: Numbers) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Texts by live key, and attributes of SVG shapes by live key (as in the row macro)."""
    text = {
        f"cpu-{row_id}": numbers.cpu,
        f"mem-{row_id}": numbers.memory[0],
        f"memu-{row_id}": numbers.memory[1],
        f"up-{row_id}": numbers.uptime,
        f"sub-{row_id}": small_numbers(numbers),
    }
    shapes: dict[str, dict[str, str]] = {f"spark-{row_id}": {"d": numbers.spark or "M0 19"}}
    if numbers.meter is not None:
        shapes[f"meter-{row_id}"] = {
            "width": str(numbers.meter.used),
            "class": numbers.meter.css_class,
        }
    return text, shapes


def small_numbers(numbers: Numbers) -> str:
    """The line under the name where there is no room for columns."""
    if numbers.cpu == NOTHING:
        return numbers.uptime
    return f"{numbers.cpu} % · {' '.join(numbers.memory)} · {numbers.uptime}"


def in_group(container: Container, group: Group | None) -> bool:
    """Whether the filter by state lets it through."""
    return group is None or group_of(container) is group
