import json

import pytest

from bench.figures import P99_RUNS, emit, percentile, ratio, spread


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (1.5, 2), (50, 50), (99, 99), (99.5, 100), (100, 100)]
)
def test_percentile_is_the_nearest_rank(percent: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), percent) == expected


def test_percentile_of_few_values_is_one_of_them() -> None:
    assert percentile([7.0], 99) == 7.0
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0


def test_p99_of_200_runs_is_not_the_worst_of_them() -> None:
    assert percentile(range(1, P99_RUNS + 1), 99) == 198


def test_spread_has_a_p99_only_with_runs_enough() -> None:
    assert spread([3.0, 1.04, 2.0], "ms") == {
        "runs": 3,
        "min_ms": 1.0,
        "p50_ms": 2.0,
        "max_ms": 3.0,
    }
    assert "p99_ms" not in spread([1.0] * (P99_RUNS - 1), "ms")
    assert spread([1.0] * P99_RUNS, "ms")["p99_ms"] == 1.0


def test_ratio_is_that_of_the_medians() -> None:
    assert ratio([1.0, 2.0, 900.0], [4.0, 4.0, 1.0]) == 0.5
    assert ratio([1.0], []) is None
    assert ratio([], [1.0]) is None


def test_a_result_is_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    emit("stop", "slipway stop", p50_ms=1.5)
    line = capsys.readouterr().out
    assert line.endswith("\n")
    assert json.loads(line) == {"bench": "stop", "name": "slipway stop", "p50_ms": 1.5}
