"""Memory is bounded by the documented budget, whatever the size and the number of transfers."""

import pytest
from conftest import FULL, place_on

MiB = 1024 * 1024
BUDGET = 64 * MiB
BLOCK = 256 * 1024
PART = 5 * MiB + BLOCK
"""What a large put to S3 has of its own, beside what it takes of the budget: docs/s3.md."""
SLACK = 16 * MiB
GIBIBYTES = 5 if FULL else 1
"""Of one object: even one is 16 times the budget."""

pytestmark = pytest.mark.slow


def test_gibibytes_and_back(run, tmp_path):
    result = run("memory", tmp_path, "one", GIBIBYTES * 1024, timeout=180)
    print(result)
    assert result["grown"] <= BUDGET + SLACK


def test_eight_at_once(run, tmp_path):
    result = run("memory", tmp_path, "many", 128, timeout=120)
    print(result)
    assert result["grown"] <= BUDGET + 8 * BLOCK + SLACK


@pytest.mark.timeout(240)
def test_gibibytes_to_s3_and_back(run, versitygw, tmp_path):
    result = run("memory", tmp_path, "one", GIBIBYTES * 1024, timeout=200, env=place_on(versitygw).environment)
    print(result)
    assert result["grown"] <= PART + BUDGET + SLACK


@pytest.mark.timeout(240)
def test_inspections(run, versitygw, tmp_path):
    mebibytes = GIBIBYTES * 1024 if FULL else 192
    result = run("memory", tmp_path, "inspected", mebibytes, timeout=200, env=place_on(versitygw).environment)
    print(result)
    assert result["grown"] <= PART + BUDGET + SLACK


@pytest.mark.timeout(240)
def test_eight_to_s3_at_once(run, versitygw, tmp_path):
    result = run("memory", tmp_path, "many", 512 if FULL else 128, timeout=200, env=place_on(versitygw).environment)
    print(result)
    assert result["grown"] <= BUDGET + 8 * PART + SLACK


def test_ten_thousand_failing_calls_leak_nothing(run, tmp_path):
    result = run("memory", tmp_path, "failures", timeout=120)
    print(result)
    before, after = result["stats"]
    for key in ("stores", "calls", "readers"):
        assert after[key] == before[key]
    assert after["goroutines"] <= before["goroutines"] + 2
    assert result["fds"] <= 0
    assert result["grown"] <= 4 * MiB
