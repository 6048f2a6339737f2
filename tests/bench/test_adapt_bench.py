"""The bench of fitting runs, and both of its sides agree."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "adapt.py"


@pytest.fixture(scope="module")
def printed():
    command = [sys.executable, str(SCRIPT), "--quick", "--repeats", "1", "--device", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_both_sides_are_printed_for_every_type_of_product(printed):
    kinds = re.findall(r"^  (\w+) products$", printed, re.MULTILINE)
    assert kinds in (["float32"], ["bfloat16", "float32"])
    table = re.findall(r"^  (\w+) +([\d,]+) +([\d.]+) +\d+ +([\d.]+) +([\d.]+)$", printed, re.M)
    assert [row[0] for row in table] == ["obvious", "ours", "shared"] * len(kinds)
    assert all(float(row[1].replace(",", "")) > 0 for row in table)


def test_a_step_with_known_states_is_the_same_step(printed):
    assert re.findall(r"shared and ours (.*) bit for bit", printed) in (
        ["the same"] * n for n in (1, 2)
    )


def test_both_sides_find_the_same_loss_and_gradients(printed):
    found = re.findall(r"KL ([\d.]+) and ([\d.]+) .* apart by (\S+) of", printed)
    ours, obvious, gradients = map(float, found[-1])  # float32
    assert ours > 0.01
    assert ours == pytest.approx(obvious, rel=1e-5)
    assert gradients < 1e-4
    for low in found[:-1]:
        assert float(low[0]) == pytest.approx(float(low[1]), rel=2e-2)
        assert float(low[2]) < 5e-2
