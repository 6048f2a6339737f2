"""The bench of the effects runs, and both of its sides agree."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "effects.py"


@pytest.fixture(scope="module")
def printed():
    command = [sys.executable, str(SCRIPT), "--quick", "--repeats", "1", "--device", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_both_sides_find_the_same(printed):
    table = re.findall(r"^  (\S.*?)  +([\d.]+) +([\d.]+) +([\d.]+)  (\S+)$", printed, re.M)
    assert [row[0] for row in table] == ["single and matched latents", "splices"]
    assert all(float(apart) < 1e-4 for *_, apart in table)
