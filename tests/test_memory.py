"""Memory is bounded by the documented budget, whatever the size and the number of transfers."""

import pytest

MiB = 1024 * 1024
BUDGET = 64 * MiB
BLOCK = 256 * 1024
SLACK = 16 * MiB

pytestmark = pytest.mark.slow


def test_five_gibibytes_and_back(run, tmp_path):
    result = run("memory", tmp_path, "one", timeout=180)
    print(result)
    assert result["grown"] <= BUDGET + SLACK


def test_eight_at_once(run, tmp_path):
    result = run("memory", tmp_path, "many", timeout=120)
    print(result)
    assert result["grown"] <= BUDGET + 8 * BLOCK + SLACK


def test_ten_thousand_failing_calls_leak_nothing(run, tmp_path):
    result = run("memory", tmp_path, "failures", timeout=120)
    print(result)
    before, after = result["stats"]
    for key in ("stores", "calls", "readers"):
        assert after[key] == before[key]
    assert after["goroutines"] <= before["goroutines"] + 2
    assert result["fds"] <= 0
    assert result["grown"] <= 4 * MiB
