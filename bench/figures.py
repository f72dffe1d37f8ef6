"""Figures of many runs, and the lines that benchmarks print: JSON to stdout, progress to stderr."""

import json
import os
import statistics
import sys
from collections.abc import Sequence

from app.services.admission import read_memory
from app.services.hosts import read_host_facts

P99_RUNS = 200  # with fewer a 99th percentile is one accident or none


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all are not above (nearest rank)."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(int(rank), 1) - 1]


def spread(values: Sequence[float], unit: str, digits: int = 1) -> dict[str, float]:
    """Count, extremes, p50, and p99 where there are runs enough for one."""
    result: dict[str, float] = {
        "runs": len(values),
        f"min_{unit}": round(min(values), digits),
        f"p50_{unit}": round(statistics.median(values), digits),
        f"max_{unit}": round(max(values), digits),
    }
    if len(values) >= P99_RUNS:
        result[f"p99_{unit}"] = round(percentile(values, 99), digits)
    return result


def ratio(values: Sequence[float], of: Sequence[float]) -> float | None:
    """How many times as large the median is; None if there is nothing to compare."""
    if not values or not of:
        return None
    return round(statistics.median(values) / statistics.median(of), 2)


def emit(bench: str, name: str, **values: object) -> None:
    """Print one result."""
    print(json.dumps({"bench": bench, "name": name, **values}), flush=True)


def say(text: str) -> None:
    """Tell whoever waits how far it is."""
    print(text, file=sys.stderr, flush=True)


def emit_machine(bench: str, **versions: object) -> None:
    """Print what the other lines were measured on, and how busy it was at the beginning."""
    facts = read_host_facts()
    emit(
        bench,
        "machine",
        cpu_model=facts.cpu_model,
        cpus=facts.cpus,
        kernel=facts.kernel,
        os=facts.os,
        memory_bytes=read_memory().total_bytes,
        load_1_min=round(os.getloadavg()[0], 2),
        **versions,
    )
