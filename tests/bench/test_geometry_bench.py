"""The bench of the geometry runs, and both of its sides agree."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "geometry.py"


pytestmark = pytest.mark.slow  # minutes on two cores


@pytest.fixture(scope="module")
def printed():
    command = [sys.executable, str(SCRIPT), "--quick", "--repeats", "1", "--device", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_part_and_both_totals_are_printed(printed):
    table = re.findall(r"^  (\S.*?)  +([\d.]+) +([\d.]+) +([\d.]+)", printed, re.MULTILINE)
    assert [row[0] for row in table] == [
        "CKA, 2 adapters",
        "max cosine, decaying",
        "top-64 angles, decaying",
        "total, decaying",
        "max cosine, random",
        "top-64 angles, random",
        "total, random",
    ]
    seconds = {row[0]: float(row[1]) for row in table}
    parts = ("CKA, 2 adapters", "max cosine, random", "top-64 angles, random")
    assert seconds["total, random"] == pytest.approx(sum(seconds[p] for p in parts), abs=0.02)


def test_both_sides_find_the_same(printed):
    (cka,) = re.findall(r"CKA by at most (\S+)", printed)
    cosines = re.findall(r"cosines by at most (\S+), (\S+)% the same column", printed)
    angles = re.findall(r"angles by at most (\S+)°", printed)
    assert len(cosines) == len(angles) == 2
    # The obvious norms sum millions of squares in float32.
    assert float(cka) < 2e-3
    for furthest, same in cosines:
        assert float(furthest) < 1e-6
        assert float(same) > 99.9
    assert max(map(float, angles)) < 0.05
